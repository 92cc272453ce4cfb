"""Where in an epoch a run goes on that was broken off there."""

from __future__ import annotations

import json
from pathlib import Path

from todm_sb.training.distributed import rank


class EpochPosition:
    """Keeps in checkpoints how many batches an epoch has, so that a run that goes on with another
    number of processes, or with batches of another size, goes on at the same part of it.

    ``n_batches`` are those of each process in the present epoch; 0 where nobody knows.
    """

    def __init__(self) -> None:
        self.n_batches = 0
        self.n_saved = 0

    def after(self, step: int, group: int) -> int:
        """The number of batches, as they are now, after which it goes on.

        Args:
            step: batches that each process had in the epoch when the checkpoint was written, after
                an optimizer step.
            group: batches that a process gathers gradients of.
        """
        if not self.n_saved or self.n_batches in (0, self.n_saved):
            return step
        if step == self.n_saved:
            return self.n_batches
        return step * self.n_batches // self.n_saved // group * group

    def save(self, path: Path) -> None:
        """Writes the number: with :meth:`load` the hooks of SpeechBrain's Checkpointer."""
        if rank() == 0:
            Path(path).write_text(json.dumps(self.n_batches), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Takes up the number that :meth:`save` wrote."""
        del end_of_epoch
        self.n_saved = json.loads(Path(path).read_text(encoding="utf-8"))
