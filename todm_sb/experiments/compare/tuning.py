"""Choices that are made on the dev set: of some trials, runs of one fold and seed, the one with the
lowest error rate there stands for all. No test set has a say in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.experiments.compare.dev_sets import of_one_dev_set, refuse_other_dev_sets
from todm_sb.training.curves import TrainingHistory
from todm_sb.utils.errors import DataError

# A fold and a seed.
Run = tuple[str, int]


@dataclass(frozen=True)
class Tuning:
    """One choice.

    Args:
        name: of the cells whose overrides the best trial has.
        trials: cells of one run.
        others: what else the choice makes, given the best trial: overrides of cells by name.
    """

    name: str
    trials: tuple[Cell, ...]
    others: Callable[[Cell], Mapping[str, dict[str, str]]] = lambda best: {}

    def found(self, runs: Runs) -> dict[str, float]:
        """Error rate on dev of each trial that is finished, by name.

        Raises:
            ConfigError: if they are of different dev sets.
        """
        finished = [trial for trial in self.trials if runs.state(trial) is State.FINISHED]
        refuse_other_dev_sets(runs, finished)
        return {trial.name: dev_error_rate(runs.folder(trial)) for trial in finished}

    def best(self, runs: Runs) -> Cell | None:
        """The trial of the lowest error rate, of equals the first; None as long as one lacks."""
        found = self.found(runs)
        if len(found) < len(self.trials):
            return None
        return min(self.trials, key=lambda trial: found[trial.name])

    def cells(self, runs: Runs, keys: Sequence[Run]) -> list[Cell]:
        """What the best trial makes for these runs; nothing as long as one lacks."""
        best = self.best(runs)
        return [] if best is None else self.cells_of(best, keys)

    def cells_of(self, best: Cell, keys: Sequence[Run]) -> list[Cell]:
        """What a trial would make for these runs."""
        named = {self.name: best.overrides, **self.others(best)}
        cells = [Cell(name, seed, o, fold) for fold, seed in keys for name, o in named.items()]
        # The trial's own run is done.
        own = replace(best, name=self.name, place=best.place or best.name, serves=())
        return [own if (x.name, x.run) == (own.name, own.run) else x for x in cells]

    def to_dict(self, runs: Runs) -> dict[str, Any]:
        """What was chosen of what, for JSON."""
        best = self.best(runs)
        return {"dev WER": self.found(runs), "chosen": best and best.name}


def dev_error_rate(folder: Path) -> float:
    """The lowest of a run's epochs: the mean of what it measures, as checkpoints are chosen by.
    An epoch that measured max alone has none, nor has one of another dev set than the last.

    Args:
        folder: of the run.

    Raises:
        DataError: if it has no history.
    """
    records = of_one_dev_set(TrainingHistory(folder).read())
    rates = [[v for k, v in x["valid"].items() if k.startswith("WER ")] for x in records]
    if not any(rates):
        raise DataError(f"{folder} has no error rates on dev: delete it, and the cell is run again")
    return min(fmean(rate) for rate in rates if len(rate) == len(rates[-1]))
