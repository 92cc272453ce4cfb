"""Writing CSV manifests, and reading them again.

Every corpus of this package ends in the same columns, so that one recipe reads them all;
:mod:`todm_sb.dataio.reading` reads those of others, too. A finished CSV is recorded, in
``prepared.json`` beside it, with its SHA-256 and with what made it: options, transcripts, audio
files. A preparation asked for again of the same has nothing to do, and none overwrites a CSV that
was changed by somebody else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from todm_sb.dataio.reading import Cells, read_table
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import read_record, sha256_of, write_atomic

# The line ends and quotes of CSV, and the space that `read_table` would take off a cell's start.
NEEDS_QUOTES = re.compile(r'[",\r\n]|^ ')
# Columns that are there only where an utterance is a part of a file.
PART = ("start", "stop")
RECORD_NAME = "prepared.json"


@dataclass(frozen=True)
class Row:
    """One utterance of a manifest; the fields are the CSV's columns, in their order.

    Args:
        ID: name of the utterance, unique in the manifest.
        duration: length in seconds.
        wav: path of the audio file.
        spk_id: name of the speaker; empty if nobody knows.
        wrds: words with single spaces.
        start, stop: of an utterance that is a part of the file, where it begins and ends, in
            seconds or in samples of the file: which of them, the duration tells.
    """

    ID: str
    duration: float
    wav: str
    spk_id: str
    wrds: str
    start: float | None = None
    stop: float | None = None

    @property
    def part(self) -> tuple[float, float] | None:
        """Start and stop; None for the whole file."""
        return None if self.start is None or self.stop is None else (self.start, self.stop)


def write_csv(path: str | Path, rows: Iterable[Row]) -> None:
    """Writes a manifest with the columns ``ID,duration,wav,spk_id,wrds``, atomically; with
    ``start,stop``, too, where there are parts of files.

    Args:
        path: the CSV file.
        rows: the utterances, written in the given order.
    """
    rows = list(rows)
    names = [field.name for field in fields(Row)]
    if all(row.part is None for row in rows):
        names = names[: -len(PART)]
    cells = [["" if (x := getattr(row, name)) is None else x for name in names] for row in rows]
    _write(path, [names, *cells])


def write_table(path: str | Path, kind: type, rows: Iterable[Any]) -> None:
    """Writes a CSV, atomically.

    Args:
        path: the file.
        kind: a dataclass, whose fields are the columns.
        rows: objects of it.
    """
    _write(path, [[field.name for field in fields(kind)], *map(astuple, rows)])


def _write(path: str | Path, lines: Iterable[Iterable[Any]]) -> None:
    write_atomic(path, "".join(",".join(map(_cell, line)) + "\n" for line in lines))


def _cell(value: Any) -> str:
    """As the csv module of newer Pythons writes it; older ones leave some quotes out."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if NEEDS_QUOTES.search(text) else text


def read_csv(path: str | Path) -> list[Row]:
    """Reads a manifest that `write_csv` wrote: paths and transcripts as they are there.

    Args:
        path: the CSV file.

    Returns:
        The utterances in the file's order.

    Raises:
        DataError: if it is none.
    """
    lines = read_table(path)
    try:
        return [row_of(cells) for _, cells in lines]
    except (TypeError, ValueError) as error:
        raise DataError(f"manifest {path} was not written by the preparation ({error})") from None


def row_of(cells: Cells) -> Row:
    """The utterance of a line of :func:`todm_sb.dataio.reading.read_lines`.

    Raises:
        ValueError: if its duration, start or stop is no number, or it has more cells than there are
            columns.
    """
    if None in cells:
        raise ValueError("a line has more cells than the header")
    columns = {column.name: cells[column.name] for column in fields(Row)}
    part = {name: float(x) if (x := cells[name].strip()) else None for name in PART}
    return Row(**{**columns, **part, "duration": float(cells["duration"])})


def is_current(path: str | Path, options: dict[str, Any]) -> bool:
    """Whether a file is there, was made from just these options, and is as it was written.

    Args:
        path: the finished file.
        options: plain values (what JSON can hold).

    Returns:
        True if there is nothing to do.
    """
    # Through JSON and back, so that a tuple compares equal to the list it was stored as.
    return options_of(path) == json.loads(json.dumps(options))


def options_of(path: str | Path) -> dict[str, Any] | None:
    """The options that `mark_current` recorded of a file; None if there is no record of it, or it
    is not as it was written."""
    record = _record_of(path)
    return record.get("made_from") if record and record["sha256"] == _sha256(path) else None


def refuse_changed(path: str | Path) -> None:
    """Protects what somebody else made of a file that `mark_current` recorded.

    Raises:
        DataError: if it is not as it was written.
    """
    record = _record_of(path)
    # Where another process prepares the file just now, what is recorded of it changes too.
    if record and record["sha256"] != _sha256(path) and record == _record_of(path):
        raise DataError(
            f"{path} was changed after it had been prepared: remove it to have it prepared anew, "
            "or keep your version elsewhere and name it as --train_csv or --valid_csv"
        )


def mark_current(path: str | Path, options: dict[str, Any]) -> None:
    """Records the options a finished file was made from, for `is_current`.

    Args:
        path: the finished file.
        options: plain values (what JSON can hold).
    """
    path = Path(path)
    record = _record(path) | {path.name: {"made_from": options, "sha256": _sha256(path)}}
    _write_record(path, record)


def forget(path: str | Path) -> None:
    """Takes back what `mark_current` recorded of a file, before it is made from other options."""
    path = Path(path)
    record = _record(path)
    if record.pop(path.name, None) is not None:
        _write_record(path, record)


def _record(path: Path) -> dict[str, Any]:
    """The options of all files prepared in the same folder; none if there is no sound record."""
    return read_record(path.parent / RECORD_NAME)


def _write_record(path: Path, record: dict[str, Any]) -> None:
    write_atomic(path.parent / RECORD_NAME, json.dumps(record, indent=2, sort_keys=True) + "\n")


def _record_of(path: str | Path) -> dict[str, Any] | None:
    """What is recorded of a file that is there; None if nothing is."""
    path = Path(path)
    record = _record(path).get(path.name) if path.is_file() else None
    return record if isinstance(record, dict) and "sha256" in record else None


def _sha256(path: str | Path) -> str | None:
    """None where there is no such file (any more)."""
    try:
        return sha256_of(path)
    except FileNotFoundError:
        return None
