"""The figures of finished cells as small files, a file a cell, from which a comparison can go on
elsewhere: without weights, logs or data, and without the places of either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import write_atomic

# What a key of the recipe is called that says where this machine has the data.
PLACE = "data_folder"


def archive_cells(runs: Runs, cells: Sequence[Cell], archive: Path) -> None:
    """Writes the figures of the cells that are finished, each to ``<name>/<seed>.json``.

    Args:
        runs: where the cells are.
        cells: of the comparison.
        archive: a folder.
    """
    for cell in cells:
        if runs.state(cell) is not State.FINISHED:
            continue
        path = _path(archive, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        figures = {
            name: json.loads((runs.folder(cell) / name).read_text(encoding="utf-8"))
            for name in runs.written
        }
        kept = {"options": _placeless(runs.options(cell)), "files": figures}
        write_atomic(path, json.dumps(kept, separators=(",", ":")) + "\n")


def restore_cells(runs: Runs, cells: Sequence[Cell], archive: Path) -> None:
    """Makes finished cells of those that were not begun here and that the archive has.

    The data of this machine are taken for those of the archive: their place may differ.

    Args:
        runs: where the cells are.
        cells: of the comparison.
        archive: a folder, which need not exist.

    Raises:
        DataError: before anything is written, if a cell of the archive ran with other options, or
            lacks a test set.
    """
    found = {}
    for cell in cells:
        path = _path(archive, cell)
        if not path.exists() or runs.state(cell) is not State.NEW:
            continue
        kept, wanted = json.loads(path.read_text(encoding="utf-8")), _placeless(runs.options(cell))
        was = kept["options"]
        for key in [*wanted, *was]:
            if was.get(key) != wanted.get(key):
                raise DataError(
                    f"{path} ran with other options ({key} was {was.get(key)}, is "
                    f"{wanted.get(key)}): give another --archive, or delete it"
                )
        if missing := [name for name in runs.written if name not in kept["files"]]:
            raise DataError(f"{path} has no {missing[0]}: delete it, and the cell is run again")
        found[cell.id] = (cell, {name: kept["files"][name] for name in runs.written})
    for cell, files in found.values():
        folder = runs.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {**files, "options.json": runs.options(cell)}.items():
            write_atomic(folder / name, json.dumps(content, indent=1))


def _path(archive: Path, cell: Cell) -> Path:
    return archive / f"{cell.id}.json"


def _placeless(options: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in options.items() if key.split(".")[-1] != PLACE}
