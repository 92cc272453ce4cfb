"""Weighted means that are gathered over steps, over processes, and over restarts of a run."""

from __future__ import annotations

import json
from pathlib import Path

from todm_sb.distributed import gather


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
        everyone = Averages()
        for sums in gather(self.sums):
            for name, (total, weights) in sums.items():
                if weights:
                    everyone.add(name, total / weights, weights)
        return everyone.means()

    def save(self, path: Path) -> None:
        """Writes them for :meth:`load`: the two hooks of SpeechBrain's Checkpointer."""
        Path(path).write_text(json.dumps(self.sums), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Takes up what :meth:`save` wrote in the middle of an epoch."""
        saved = json.loads(Path(path).read_text(encoding="utf-8"))
        self.sums = {} if end_of_epoch else {name: tuple(sums) for name, sums in saved.items()}
