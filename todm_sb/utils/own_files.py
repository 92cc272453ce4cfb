"""Files that a command writes anew each time, into a folder where others may have written, too.

``.written.json`` in the folder lists them with the SHA-256 of each. One that is not in it, or was
changed since, is somebody's work and is not written over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import read_record, sha256_of, write_atomic

RECORD = ".written.json"


def write_own(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files by name, each whole or not at all.

    Raises:
        ConfigError: see :func:`check_own`; nothing has been written then.
    """
    files = {name: data for name, data in files.items() if not _holds(folder / name, data)}
    check_own(folder, files)
    written = read_record(folder / RECORD)
    for name, data in files.items():
        # The one before, too: it is there still if this one is not.
        written[name] = [hashlib.sha256(data).hexdigest(), *written.get(name, [])][:2]
    write_atomic(folder / RECORD, json.dumps(written, indent=1) + "\n")
    for name, data in files.items():
        write_atomic(folder / name, data)


def check_own(folder: Path, names: Iterable[str]) -> None:
    """Checks that files may be written over.

    Args:
        folder: need not be there.
        names: of the files in it.

    Raises:
        ConfigError: if one of them was not written by :func:`write_own`, or was changed since, or
            has the name of the list, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder")
    written = read_record(folder / RECORD)
    for name in names:
        path = folder / name
        if path == folder / RECORD:
            raise ConfigError(f"{path} is the list of what this command wrote: choose another name")
        if path.exists() and not (path.is_file() and sha256_of(path) in written.get(name, [])):
            raise ConfigError(
                f"{path} was not written by this command, or was changed since: move it away"
            )


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data
