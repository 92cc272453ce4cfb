"""What lies in a folder, in an order that does not depend on the file system.

Hidden entries are left out: macOS puts a ``.DS_Store`` into folders and, on disks that are not its
own, a ``._NAME`` beside each NAME.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from todm_sb.utils.errors import quoted

# Files that a thread looks at in one go: a corpus has some 300,000.
CHUNK = 1000


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, and links to folders, by name."""
    with os.scandir(folder) as entries:
        names = [x.name for x in entries if not x.name.startswith(".") and x.is_dir()]
    return [folder / name for name in sorted(names)]


def files(folder: Path, suffix: str) -> list[Path]:
    """What in a folder ends in this suffix, by name; folders and broken links among it.

    Args:
        folder: must be there.
        suffix: such as ``.flac``.
    """
    names = (name for name in os.listdir(folder) if name.endswith(suffix))
    return [folder / name for name in sorted(names) if not name.startswith(".")]


def files_below(folder: Path, seen: set[str] | None = None) -> Iterator[Path]:
    """Files of a folder and of those below it, each folder once, however many links lead to it.

    Args:
        folder: must be there.
        seen: real paths of folders to leave out; it grows.
    """
    seen, place = set() if seen is None else seen, os.path.realpath(folder)
    if place in seen:
        return
    seen.add(place)
    with os.scandir(folder) as entries:
        names = [x.name for x in entries if not x.name.startswith(".") and not x.is_dir()]
    yield from (folder / name for name in names)
    for below in subfolders(folder):
        yield from files_below(below, seen)


def files_digest(paths: Sequence[str | Path], num_threads: int = 8) -> str:
    """Fingerprint of paths, sizes and times of change of files: are they those of last time?

    Neither size nor time would do alone. Silence of another length can have the same number of
    bytes in FLAC; archives and ``rsync --times`` bring other files with old times.

    Args:
        paths: one that is not there counts, too.
        num_threads: files looked at at a time.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    digest = hashlib.sha256()
    with ThreadPoolExecutor(num_threads) as pool:
        for seen in pool.map(_look, chunks):
            digest.update(seen)
    return digest.hexdigest()


def size(path: str | Path) -> int:
    """Bytes of a file; -1 where there is none."""
    return _stat(path)[0]


def is_text(name: str | Path) -> bool:
    """Whether the name of a file is UTF-8, as all text is here."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(path: Path) -> str:
    """How a message calls a file, whose name need not be text."""
    return str(path) if is_text(path) else quoted(str(path), 1000)


def _look(paths: Sequence[str | Path]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0%d\0%d\0" % _stat(path) for path in paths)


def _stat(path: str | Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # the latter for a name that no file can have
        return -1, -1
    return found.st_size, found.st_mtime_ns
