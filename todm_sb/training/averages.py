"""Weighted means that are gathered over steps, over processes, and over restarts of a run."""

from __future__ import annotations

import json
from pathlib import Path

from todm_sb.training.distributed import all_gather, rank


class Averages:
    """Weighted means by name."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, name: str, value: float, weight: float = 1.0) -> None:
        """Takes a value into the mean of that name."""
        total, weights = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (total + weight * value, weights + weight)

    def means(self) -> dict[str, float]:
        """The means of this process."""
        return {name: total / weights for name, (total, weights) in self.sums.items() if weights}

    def means_of_all(self) -> dict[str, float]:
        """The means over all processes; each must call this."""
        return self._of_all().means()

    def _of_all(self) -> Averages:
        everyone = Averages()
        for sums in all_gather(self.sums):
            for name, (total, weights) in sums.items():
                before, weights_before = everyone.sums.get(name, (0.0, 0.0))
                everyone.sums[name] = (before + total, weights_before + weights)
        return everyone

    def save(self, path: Path) -> None:
        """Writes those of all processes for :meth:`load`: the hooks of SpeechBrain's Checkpointer.

        Each process must call this; the first writes.
        """
        everyone = self._of_all()
        if rank() == 0:
            Path(path).write_text(json.dumps(everyone.sums), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Takes up, in the first process, what :meth:`save` wrote in the middle of an epoch."""
        self.sums = {}
        if rank() == 0 and not end_of_epoch:
            saved = json.loads(Path(path).read_text(encoding="utf-8"))
            self.sums = {name: tuple(sums) for name, sums in saved.items()}
