"""Writing and reading CSV manifests.

Every corpus of this package ends in the same five columns, so that one recipe reads them all. What
reads a manifest reads it by :func:`read_lines`. A finished CSV is recorded, in ``prepared.json``
beside it, with its SHA-256 and with what made it: options, transcripts, audio files. A preparation
asked for again of the same has nothing to do, and none overwrites a CSV that was changed by
somebody else.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from todm_sb.utils.errors import DataError
from todm_sb.utils.files import read_record, sha256_of, write_atomic
from todm_sb.utils.text_files import BOM, read_text

# The line ends and quotes of CSV, and the space that `read_lines` would take off a cell's start.
NEEDS_QUOTES = re.compile(r'[",\r\n]|^ ')
SEPARATORS = {";": "semicolons", "\t": "tabs"}
RECORD_NAME = "prepared.json"


@dataclass(frozen=True)
class Row:
    """One utterance of a manifest; the fields are the CSV's columns, in their order.

    Args:
        ID: name of the utterance, unique in the manifest.
        duration: length in seconds.
        wav: path of the audio file.
        spk_id: name of the speaker (for LibriSpeech, of the speaker and chapter).
        wrds: words with single spaces.
    """

    ID: str
    duration: float
    wav: str
    spk_id: str
    wrds: str


def write_csv(path: str | Path, rows: Iterable[Row]) -> None:
    """Writes a manifest with the columns ``ID,duration,wav,spk_id,wrds``, atomically.

    Args:
        path: the CSV file.
        rows: the utterances, written in the given order.
    """
    write_table(path, Row, rows)


def write_table(path: str | Path, kind: type, rows: Iterable[Any]) -> None:
    """Writes a CSV, atomically.

    Args:
        path: the file.
        kind: a dataclass, whose fields are the columns.
        rows: objects of it.
    """
    lines = [[field.name for field in fields(kind)], *map(astuple, rows)]
    write_atomic(path, "".join(",".join(map(_cell, line)) + "\n" for line in lines))


def _cell(value: Any) -> str:
    """As the csv module of newer Pythons writes it; older ones leave some quotes out."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if NEEDS_QUOTES.search(text) else text


def read_csv(path: str | Path) -> list[Row]:
    """Reads a manifest that `write_csv` wrote.

    Args:
        path: the CSV file.

    Returns:
        The utterances in the file's order.

    Raises:
        DataError: if it is none.
    """
    lines = read_lines(path)
    try:
        return [row_of(cells) for _, cells in lines]
    except (TypeError, ValueError) as error:
        raise DataError(f"manifest {path} was not written by the preparation ({error})") from None


def row_of(cells: Mapping[str | None, Any]) -> Row:
    """The utterance of a line of :func:`read_lines`.

    Raises:
        ValueError: if its duration is no number, or it has more cells than there are columns.
    """
    if None in cells:
        raise ValueError("a line has more cells than the header")
    columns = {column.name: cells[column.name] for column in fields(Row)}
    return Row(**{**columns, "duration": float(cells["duration"])})


def read_lines(path: str | Path) -> list[tuple[int, dict[str | None, Any]]]:
    """The rows of a manifest as text, each with the line number of its end; blank rows left out.

    Lines end with ``\\n`` or ``\\r\\n``; byte order marks, spaces after a comma and a header that
    is there again, as in files that were put one after another, do not count.

    Args:
        path: CSV, in UTF-8, whose header names at least the columns of :class:`Row`.

    Returns:
        The cells by column, the others of the file left out. A key of None holds a list of what
        follows the header's last column, where anything does.

    Raises:
        DataError: if there is no such file, or it is no such CSV.
    """
    text = _text(path)
    # Lines end nowhere else, and a quote that is never closed is an error, not the rest of a cell.
    reader = csv.reader(io.StringIO(text, newline="\n"), skipinitialspace=True, strict=True)
    try:
        filled = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(
            f"manifest {path}, line {reader.line_num}: {error}: put a cell with quotes or line "
            "ends between quotes, and double the quotes within it"
        ) from None
    columns = [name.strip() for name in filled[0][1]] if filled else []
    for name in (field.name for field in fields(Row)):
        if columns.count(name) != 1:
            raise DataError(f"manifest {path} {_wrong_columns(name, columns)}")
    place = {field.name: columns.index(field.name) for field in fields(Row)}
    return [
        (line, _row(cells, place, len(columns)))
        for line, cells in filled[1:]
        if [cell.strip().lstrip(BOM) for cell in cells] != columns
    ]


def _row(cells: list[str], place: dict[str, int], n_columns: int) -> dict[str | None, Any]:
    row: dict[str | None, Any] = {
        name: cells[i] if i < len(cells) else "" for name, i in place.items()
    }
    if any(map(str.strip, cells[n_columns:])):
        row[None] = cells[n_columns:]
    return row


def _text(path: str | Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise DataError(f"manifest {path} does not exist: run the data preparation first") from None
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror or error}") from None


def _wrong_columns(name: str, columns: list[str]) -> str:
    if name in columns:
        return f"has {columns.count(name)} columns '{name}': leave one"
    for separator, plural in SEPARATORS.items():
        if any(separator in column for column in columns):
            return f"has {plural} between its cells: separate them by commas"
    return f"has no column '{name}': prepare the data again"


def is_current(path: str | Path, options: dict[str, Any]) -> bool:
    """Whether a file is there, was made from just these options, and is as it was written.

    Args:
        path: the finished file.
        options: plain values (what JSON can hold).

    Returns:
        True if there is nothing to do.
    """
    record = _record_of(path)
    # Through JSON and back, so that a tuple compares equal to the list it was stored as.
    if record is None or record.get("made_from") != json.loads(json.dumps(options)):
        return False
    return record["sha256"] == _sha256(path)


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
