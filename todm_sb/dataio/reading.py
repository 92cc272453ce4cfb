"""Manifests as they come: CSV or JSON, with the columns that SpeechBrain's recipes write.

CSV has a header and a line an utterance. JSON is one object, of an entry for each utterance by its
id: ``{"utt1": {"wav": "a.wav", "duration": 1.5, "wrd": "..."}}``, where ``length`` can stand for
``duration``, and ``wav`` be an object of ``file``, ``start`` and ``stop``. What reads a manifest
reads it by :func:`read_lines`, whatever it is.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from todm_sb.utils.errors import ConfigError, DataError, quoted
from todm_sb.utils.text_files import BOM, read_text

REQUIRED = ("ID", "duration", "wav")
# The transcript is in the one that there is, or else in that which is named.
TEXT_COLUMNS = ("wrds", "wrd")
OPTIONAL = ("spk_id", "start", "stop")
SEPARATORS = {";": "semicolons", "\t": "tabs"}
# What SpeechBrain's recipes write in place of the folder of the audio, in JSON and in CSV.
DATA_ROOT = "{data_root}"
_ROOT = re.compile(r"\{data_(?:root|folder)\}|\$data_(?:root|folder)(?![\w.])")

# What may be done to the letters of a transcript. Changing their case merges what has one form in
# the other case: dotted and dotless i, ss and ß.
LETTER_CASES: dict[str, Callable[[str], str]] = {
    "keep": str,
    "upper": str.upper,
    "lower": str.lower,
}

# By column; that of the transcript is called wrds, and what is not there is empty. None holds a
# list of what follows a CSV's last column.
Cells = dict[str | None, Any]
Lines = list[tuple[int, Cells]]


def check_letter_case(letter_case: Any) -> None:
    """Refuses what is none of :data:`LETTER_CASES`.

    Raises:
        ConfigError: with what it may be.
    """
    if letter_case not in tuple(LETTER_CASES):
        raise ConfigError(
            f"letter_case is {quoted(letter_case)}: make it {', '.join(LETTER_CASES)}"
        )


@dataclass(frozen=True)
class Reading:
    """How the manifests of a run are read.

    Args:
        text_column: that of the transcripts; None for ``wrds`` or ``wrd``, which of them there is.
        data_root: what ``{data_root}`` stands for in paths, or ``$data_root``, or ``data_folder``
            in place of ``data_root``.
        letter_case: of the transcripts: ``keep``, ``upper`` or ``lower``.

    Raises:
        ConfigError: if the letter case is none of these.
    """

    text_column: str | None = None
    data_root: str | Path | None = None
    letter_case: str = "keep"

    def __post_init__(self) -> None:
        check_letter_case(self.letter_case)


AS_WRITTEN = Reading()


def reading_of(hparams: Mapping[str, Any]) -> Reading:
    """How a recipe reads manifests.

    Args:
        hparams: may have ``text_column``, ``data_folder`` (``{data_root}``) and ``letter_case``.
    """
    return Reading(
        hparams.get("text_column"), hparams.get("data_folder"), hparams.get("letter_case", "keep")
    )


def read_lines(path: str | Path, reading: Reading = AS_WRITTEN) -> Lines:
    """The rows of a manifest, each with its number: paths that can be opened, transcripts in the
    wanted letters.

    Paths are relative to the manifest's folder.

    Args:
        path: CSV or JSON, in UTF-8.
        reading: how it is read.

    Returns:
        Number and cells of each utterance. A CSV's are numbered by the line of their end, which
        begins at 1 with the header; those of JSON are counted from 1.

    Raises:
        DataError: if there is no such file, it is no such manifest, or ``{data_root}`` is in a path
            and nobody says what it stands for.
    """
    folder = os.path.dirname(path)
    change = LETTER_CASES[reading.letter_case]
    lines = read_table(path, reading.text_column)
    for _, cells in lines:
        wav = cells["wav"]
        if found := _ROOT.search(wav):
            if reading.data_root is None:
                raise DataError(
                    f"manifest {path}: {found[0]} is in the path of {quoted(cells['ID'])}: give "
                    "the folder that it stands for as data_folder (check-data: --data-root)"
                )
            wav = os.path.abspath(reading.data_root).join(_ROOT.split(wav))
        cells["wav"] = os.path.join(folder, wav) if wav.strip() else wav
        cells["wrds"] = change(cells["wrds"])
    return lines


def read_table(path: str | Path, text_column: str | None = None) -> Lines:
    r"""As :func:`read_lines`, but paths and transcripts as they are written.

    Lines of CSV end with ``\n`` or ``\r\n``; byte order marks, spaces after a comma and a header
    that is there again, as in files that were put one after another, do not count, nor do blank
    rows and columns that nobody asks for.

    Args:
        path: CSV or JSON.
        text_column: that of the transcripts, if it has a name of its own.

    Raises:
        DataError: if there is no such file, or it is no such manifest.
    """
    text = _text(path)
    is_json = str(path).endswith(".json") or text.lstrip().startswith(("{", "["))
    return (_read_json if is_json else _read_csv)(path, text, text_column)


def _text(path: str | Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError:
        raise DataError(
            f"manifest {path} does not exist: name another, or prepare the data"
        ) from None
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror or error}") from None


def _read_csv(path: str | Path, text: str, text_column: str | None) -> Lines:
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
    place = {
        name: columns.index(column) if column else None
        for name, column in _columns(path, columns, text_column).items()
    }
    return [
        (line, _row(cells, place, len(columns)))
        for line, cells in filled[1:]
        if [cell.strip().lstrip(BOM) for cell in cells] != columns
    ]


def _row(cells: list[str], place: dict[str, int | None], n_columns: int) -> Cells:
    row: Cells = {
        name: "" if i is None or i >= len(cells) else cells[i] for name, i in place.items()
    }
    if any(map(str.strip, cells[n_columns:])):
        row[None] = [cell for cell in cells[n_columns:] if cell.strip()]
    return row


def _columns(
    path: str | Path, columns: list[str], text_column: str | None
) -> dict[str, str | None]:
    """Which column of a manifest is which of ours; None for one that need not be there."""

    texts = [name for name in TEXT_COLUMNS if name in columns]
    if len(texts) > 1 and not text_column:
        raise DataError(
            f"manifest {path} has the columns {' and '.join(map(repr, texts))}: name that of the "
            "transcripts as text_column"
        )
    text = text_column or next(iter(texts), None)
    needed = {**dict(zip(REQUIRED, REQUIRED, strict=True)), "wrds": text}
    found = {**needed, **{name: name if name in columns else None for name in OPTIONAL}}
    for name, column in found.items():
        if name in needed and column not in columns:
            raise DataError(f"manifest {path} {_missing(column, columns)}")
        if column and columns.count(column) > 1:
            raise DataError(
                f"manifest {path} has {columns.count(column)} columns '{column}': leave one"
            )
    if (found["start"] is None) != (found["stop"] is None):
        raise DataError(
            f"manifest {path} has but one of the columns 'start' and 'stop': a part of a file "
            "takes both"
        )
    return found


def _missing(column: str | None, columns: list[str]) -> str:
    """What is wrong with a manifest without a column; None is that of the transcripts."""
    for separator, plural in SEPARATORS.items():
        if any(separator in name for name in columns):
            return f"has {plural} between its cells: separate them by commas"
    present = f"(it has {', '.join(columns) or 'none'})"
    if column is None:
        return (
            f"has no column 'wrds' or 'wrd' {present}: name that of the transcripts as text_column"
        )
    return f"has no column '{column}' {present}"


def _read_json(path: str | Path, text: str, text_column: str | None) -> Lines:
    try:
        # As pairs, since an object would forget all but the last entry of an id.
        content = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"manifest {path} is not JSON ({error}): it takes one object, of an entry for each ID"
        ) from None
    if not isinstance(content, _Pairs):
        raise DataError(
            f"manifest {path} is no JSON object, but {_kind(content)}: it takes one, of an entry "
            "for each ID"
        )
    entries = [_entry(path, name, entry) for name, entry in content]
    columns = list(dict.fromkeys(key for entry in entries for key in entry))
    place = _columns(path, columns, text_column) if entries else {}
    return [
        (number, {name: _cell(path, entry, key) for name, key in place.items()})
        for number, entry in enumerate(entries, start=1)
    ]


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written."""


def _entry(path: str | Path, name: str, entry: Any) -> dict[str, Any]:
    """An utterance, and its audio's file and part side by side."""
    if not isinstance(entry, _Pairs):
        raise DataError(f"manifest {path}, {quoted(name)}: {_kind(entry)} in place of an object")
    found: dict[str, Any] = {"ID": name, **dict(entry)}
    if "length" in found:  # as in SpeechBrain's templates
        found.setdefault("duration", found["length"])
    if isinstance(found.get("wav"), _Pairs):
        audio = dict(found["wav"])
        found |= {key: audio[key] for key in ("start", "stop") if key in audio}
        found["wav"] = audio.get("file")
    return found | {"ID": name}


def _cell(path: str | Path, entry: dict[str, Any], key: str | None) -> str:
    """What a value would be in a CSV."""
    value = entry.get(key) if key else None
    if value is None:
        return ""
    if isinstance(value, bool | list):
        raise DataError(
            f"manifest {path}, {quoted(entry['ID'])}: '{key}' must be text or a number, not "
            f"{_kind(value)}"
        )
    text = str(value)
    # JSON can escape what UTF-8 does not have, and what no path and no text has.
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"manifest {path}, {quoted(entry['ID'])}: '{key}' is no text")
    return text


def _kind(value: Any) -> str:
    """How a message calls what JSON holds."""
    if isinstance(value, _Pairs):
        return "an object"
    return "a list" if isinstance(value, list) else quoted(value, 40)
