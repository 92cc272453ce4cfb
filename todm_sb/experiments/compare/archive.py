"""The figures of finished cells as small files, a file a cell, from which a comparison can go on
elsewhere: without weights, logs or data, and without the places of either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from todm_sb.experiments.compare.cells import Cell, Runs, State, first_difference, runs_of_names
from todm_sb.experiments.compare.data import DATA_FILE, other_data, placeless
from todm_sb.experiments.compare.tuning import Run
from todm_sb.training.curves import TrainingHistory
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import read_record, write_atomic

# Keys of a recipe that say where this machine has the data, whose fingerprints tell what they are.
PLACES = {"data_folder", "data_root", "train_csv", "valid_csv", "test_csvs"}
# Noise has no fingerprint: it is told that there is some.
NOISE, SOME = "noise_folder", "a folder"
AGAIN = "delete it, and the cell is run again"

# A finished cell, its files by name, and what was measured after each epoch.
Archived = tuple[Cell, dict[str, Any], list[dict[str, Any]]]


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
        if data := placeless(read_record(runs.folder(cell) / DATA_FILE)):
            figures[DATA_FILE] = data
        history = TrainingHistory(runs.folder(cell)).read()
        kept = {"options": _placeless(runs.options(cell)), "files": figures, "history": history}
        write_atomic(path, json.dumps(kept, separators=(",", ":")) + "\n")


def restore_cells(runs: Runs, cells: Sequence[Cell], archive: Path) -> None:
    """Makes finished cells of those that :func:`archived_cells` tells.

    Args:
        runs: where the cells are.
        cells: of the comparison.
        archive: a folder, which need not exist.

    Raises:
        DataError: before anything is written; see :func:`archived_cells`.
    """
    for cell, files, history in archived_cells(runs, cells, archive):
        folder = runs.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        if history:
            TrainingHistory(folder).write(history)
        for name, content in {**files, "options.json": runs.options(cell)}.items():
            write_atomic(folder / name, json.dumps(content, indent=1))


def archived_cells(runs: Runs, cells: Sequence[Cell], archive: Path) -> list[Archived]:
    """Those of the cells that were not begun here and that the archive has.

    The data of this machine may lie elsewhere; where they, or the archive, tell no fingerprints,
    they are taken for those of the archive.

    Args:
        runs: where the cells are.
        cells: of the comparison.
        archive: a folder, which need not exist.

    Raises:
        DataError: if a cell of the archive cannot be read, ran with other options or data, or lacks
            a test set.
    """
    found = []
    for cell in cells:
        path = _path(archive, cell)
        if not path.exists() or runs.state(cell) is not State.NEW:
            continue
        was, files, history = _read(path)
        difference = first_difference(_placeless(was), _placeless(runs.options(cell)))
        if difference := difference or other_data(files[DATA_FILE], runs.data(cell)):
            raise DataError(
                f"{path} ran with other options ({difference}): give another --archive, or "
                "delete it"
            )
        if missing := [name for name in runs.written if name not in files]:
            raise DataError(f"{path} has no {missing[0]}: {AGAIN}")
        names = (*runs.written, DATA_FILE)
        found.append((cell, {name: files[name] for name in names}, history))
    return found


def runs_of_archive(archive: Path) -> set[Run]:
    """Fold and seed of the cells in an archive, which need not exist."""
    return runs_of_names({path.stem for path in archive.glob("*/*.json")})


def is_archived(archive: Path, cell: Cell) -> bool:
    """Whether an archive has a cell, of whatever options."""
    return _path(archive, cell).exists()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Any], list[dict[str, Any]]]:
    """Options, files and history of a cell."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        files = dict(kept["files"])
        files[DATA_FILE] = dict(files.get(DATA_FILE, {}))
        return dict(kept["options"]), files, list(kept["history"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): {AGAIN}") from None


def _path(archive: Path, cell: Cell) -> Path:
    return archive / f"{cell.id}.json"


def _placeless(options: Mapping[str, str]) -> dict[str, str]:
    told = {key: value for key, value in options.items() if PLACES.isdisjoint(key.split("."))}
    noise = told.get(NOISE)
    if noise in (None, "", "null"):
        return told
    return {key: SOME if value == noise else value for key, value in told.items()}
