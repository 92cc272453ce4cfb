"""Folders of exports: whoever filled a folder keeps what is in it.

``export.json`` lists the files that an export wrote, by names relative to the folder, with the
SHA-256 of each. The next export into the folder, of whatever format, replaces and removes these
files alone. One that was changed since stays; what no export wrote is never written over. Nothing
reads ``export.json`` when a network is loaded.

An export is prepared in a folder within its target, so that putting it in place takes no room and
no more than renaming. Before, ``export.json`` lists what is there and what will be: broken off at
any moment, an export leaves nothing that the next one does not know. All of the earlier files are
gone before the first new one comes, so that no moment shows files of two networks together.

A model card is text for people: one that somebody wrote or changed is kept, and nothing is refused.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from todm_sb import __version__
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.files import sha256_of
from todm_sb.utils.locks import try_lock
from todm_sb.utils.schema import mapping, parse_json, table, text

logger = logging.getLogger(__name__)

RECORD = "export.json"
MAX_RECORD_BYTES = 16 << 20
STAGING = ".unfinished-export"
# Whoever finds one of these takes the whole folder for what it describes. So no export may leave
# one beside itself, whether or not it writes one, and they are last to come and first to go.
ENTRIES = ("bundle.json", "hyperparams.yaml")
MODEL_CARD = "README.md"
# In place of the hash of what is no file, or is reached through a link.
OTHER = "other"

MEND = "move it away, or name another folder"


def _file_name(value: Any, where: str) -> None:
    """A relative path with slashes that stays within its folder, in its simplest form."""
    text(r"[^\\:\x00-\x1f]+")(value, where)
    path = PurePosixPath(value)
    taken = path.parts[:1] in ((), (RECORD,), (STAGING,))
    if taken or path.is_absolute() or ".." in path.parts or str(path) != value:
        raise ConfigError(f"{where}: {quoted(value)} is no file of an export")


_FILES = table(_file_name, text("[0-9a-f]{64}"), 100_000)
_RECORD = mapping(
    {"todm_sb": text(r"[\w.+-]{1,40}"), "format": text("[a-z0-9-]{1,40}"), "files": _FILES},
    # What was there when an export was broken off.
    {"replaced": _FILES},
)


@contextmanager
def new_export(
    folder: str | Path, form: str, names: Iterable[str], card: str | None = None
) -> Iterator[Path]:
    """A folder to write an export into; what the block leaves there replaces the earlier export.

    Example:
        >>> with new_export("exported/min", "text", ["a.txt"]) as new:  # doctest: +SKIP
        ...     (new / "a.txt").write_text("a")

    Args:
        folder: of the export; made if need be.
        form: its format, for the record.
        names: every file that this format may have, relative to the folder, with slashes. None of
            them may be there already unless an export wrote it, so that nobody takes a stranger's
            file for a part of this export.
        card: text of the model card, if there is to be one.

    Yields:
        A folder, empty but for the card. Whatever the block raises, the target is as it was.

    Raises:
        ConfigError: with one line, before anything is written: if the folder cannot hold an
            export, or holds a file of this name that no export wrote, or that was changed since
            and would now be written with other contents.
    """
    folder, names = Path(folder), {*names, *([] if card is None else [MODEL_CARD])}
    check_place(folder)
    owned = _owned(folder)
    for name in sorted({*names, *ENTRIES} - owned.keys() - {MODEL_CARD}):
        _file_name(name, "a file of the export")
        if _content(folder, name) is not None:
            raise _foreign(folder, name)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _staging(folder) as staging:
            if card is not None:
                (staging / MODEL_CARD).write_text(card, encoding="utf-8", newline="\n")
            yield staging
            _put_in_place(staging, folder, form, names)
    except OSError as error:
        raise ConfigError(f"nothing is exported to {folder}: {error}") from error
    finally:
        for path in made:  # where nothing came of it
            with suppress(OSError):
                path.rmdir()


def check_place(folder: str | Path, run: str | Path | None = None) -> None:
    """Whether a folder may hold an export, before there is anything to export.

    Args:
        folder: of the export.
        run: folder of the training run that it is of.

    Raises:
        ConfigError: if it is a file, a training run or one around the run, if what it holds cannot
            be told, or it cannot be written.
    """
    folder = Path(folder)
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise _no_place(folder, f"{nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _no_place(folder, f"{nearest} cannot be written")
    if (folder / "history.jsonl").exists():
        raise _no_place(folder, "it is a training run")
    if run is not None and folder.resolve() in (Path(run).resolve(), *Path(run).resolve().parents):
        raise _no_place(folder, f"it is or holds the run {run}")
    _owned(folder)


def _no_place(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"{folder} is no place for an export, {reason}: name a folder of its own")


def _foreign(folder: Path, name: str) -> ConfigError:
    return ConfigError(f"{folder / name} was not written by an export: {MEND}")


def _owned(folder: Path) -> dict[str, set[str]]:
    """SHA-256 of the files that exports wrote, by name; two of a file that one was about to
    replace when it was broken off."""
    path = folder / RECORD
    if not os.path.lexists(path):
        return {}
    try:
        if path.is_symlink() or not path.is_file():
            raise ConfigError("it is no file")
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ConfigError(f"it has more than {MAX_RECORD_BYTES:,} bytes")
        data = parse_json(path.read_bytes())
        _RECORD(data, RECORD)
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{path} was not written by an export ({error}): {MEND}") from None
    owned: dict[str, set[str]] = {}
    for files in (data["files"], data.get("replaced", {})):
        for name, digest in files.items():
            owned.setdefault(name, set()).add(digest)
    return owned


def _content(folder: Path, name: str) -> str | None:
    """SHA-256 of a file; None if nothing is there, OTHER if no file of the folder's own is."""
    *parents, _ = PurePosixPath(name).parts
    for i in range(len(parents)):
        parent = folder.joinpath(*parents[: i + 1])
        if not os.path.lexists(parent):
            return None
        if parent.is_symlink() or not parent.is_dir():
            return OTHER
    path = folder / name
    if not os.path.lexists(path):
        return None
    return OTHER if path.is_symlink() or not path.is_file() else sha256_of(path)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """An empty folder within the target, for one export at a time."""
    staging = folder / STAGING
    if staging.is_symlink():
        raise _foreign(folder, STAGING)
    staging.mkdir(exist_ok=True)
    lock = _lock(staging, folder)
    try:
        for path in staging.iterdir():  # of an export that was killed
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(staging: Path, folder: Path) -> int | None:
    """Locks a folder for as long as this process lives; None where that cannot be done."""
    if os.name == "nt":  # where a folder cannot be opened
        return None
    lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        taken = try_lock(lock)
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    if not taken:
        os.close(lock)
        raise ConfigError(f"another export is being written to {folder}: wait for it")
    return lock


def _put_in_place(staging: Path, folder: Path, form: str, names: set[str]) -> None:
    """Replaces the files of earlier exports by those of the staging folder."""
    paths = sorted(path for path in staging.rglob("*") if path.is_file())
    files = {path.relative_to(staging).as_posix(): sha256_of(path) for path in paths}
    owned = _owned(folder)
    needed = {*files, *names, *ENTRIES}
    found = {name: _content(folder, name) for name in sorted({*owned, *needed})}
    kept, old = set(), {}
    for name, content in found.items():
        if content is None:
            continue
        if name not in owned and name != MODEL_CARD:
            raise _foreign(folder, name)
        if content in owned.get(name, ()):
            old[name] = content
        elif name == MODEL_CARD or name not in needed or files.get(name) in owned[name]:
            # Either no part of this export, or what it would write is what was changed.
            kept.add(name)
        else:
            raise ConfigError(f"{folder / name} was changed since it was exported: {MEND}")
    for name in sorted(kept):
        who = "was changed since it was exported" if name in owned else "is somebody's"
        logger.warning("%s %s: it is kept", folder / name, who)
    _write_record(staging, folder, form, files, old)
    for name in sorted(old, key=_rank, reverse=True):
        (folder / name).unlink()
    for name in sorted(files.keys() - kept, key=_rank):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, folder / name)
    parents = {parent for name in owned for parent in (folder / name).parents}
    for parent in sorted((p for p in parents if folder in p.parents), reverse=True):
        with suppress(OSError):  # something is in it
            parent.rmdir()
    _write_record(staging, folder, form, files)


def _rank(name: str) -> tuple[bool, str]:
    return name in ENTRIES, name


def _write_record(
    staging: Path,
    folder: Path,
    form: str,
    files: dict[str, str],
    replaced: dict[str, str] | None = None,
) -> None:
    record: dict[str, Any] = {"todm_sb": __version__, "format": form, "files": files}
    if replaced:
        record["replaced"] = replaced
    path = staging / RECORD
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(path, folder / RECORD)
