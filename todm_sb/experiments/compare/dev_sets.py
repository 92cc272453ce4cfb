"""Which dev set the error rates of a cell are of: those of others are not compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from todm_sb.experiments.compare.cells import Cell, Label, Runs
from todm_sb.training.curves import TrainingHistory
from todm_sb.utils.errors import ConfigError


def of_one_dev_set(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of a history that are of what its last one is of; old ones do not tell."""
    records = list(records)
    return [x for x in records if _wer_of(x) == _wer_of(records[-1])]


def refuse_other_dev_sets(runs: Runs, cells: Iterable[Cell]) -> None:
    """Protects what is compared or chosen; a cell that does not tell its dev set is let pass.

    Args:
        runs: where the cells are.
        cells: that are finished.

    Raises:
        ConfigError: if two, of one fold and seed, ended on different dev sets.
    """
    first: dict[Label, tuple[str, Path]] = {}
    for cell in cells:
        folder = runs.folder(cell)
        records = TrainingHistory(folder).read()
        dev_set = _wer_of(records[-1]).get("dev_set") if records else None
        if dev_set is None:
            continue
        theirs, other = first.setdefault(cell.run, (dev_set, folder))
        if dev_set != theirs:
            raise ConfigError(
                f"{other} and {folder} were measured on different dev sets: delete that whose "
                "data are not meant, and the cell is run again"
            )


def _wer_of(record: Mapping[str, Any]) -> dict[str, str]:
    return record.get("wer_of") or {}
