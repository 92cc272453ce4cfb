"""Steps whose gradient is not finite: left out, counted, and too many of them in a row an error."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from todm_sb.training.distributed import rank
from todm_sb.utils.errors import TrainingError

logger = logging.getLogger(__name__)

# Parameters named in a message.
NAMED = 3


class GradientGuard:
    """Tells whether a step can be taken.

    Args:
        patience: steps in a row that may be left out.

    ``norm`` is that of the last gradient.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.in_a_row = 0
        self.left_out = 0
        self.norm = math.nan

    def passes(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> bool:
        """Whether all gradients are finite; if not, counts the step and names the parameters.

        Args:
            named_parameters: with the same gradients in every process.

        Raises:
            TrainingError: if it is one too many in a row.
        """
        named = [(name, p.grad) for name, p in named_parameters if p.grad is not None]
        if not named:
            return True
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in named])).tolist()
        self.norm = math.hypot(*norms)
        finite = [math.isfinite(norm) for norm in norms]
        if all(finite):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        self.left_out += 1
        bad = [name for (name, _), is_finite in zip(named, finite, strict=True) if not is_finite]
        where = ", ".join(bad[:NAMED]) + (f" and {len(bad) - NAMED} more" if bad[NAMED:] else "")
        logger.warning(
            "the gradient of %s is not finite: step left out (%d in a row, %d so far)",
            where,
            self.in_a_row,
            self.left_out,
        )
        if self.in_a_row > self.patience:
            raise TrainingError(
                f"{self.in_a_row} steps in a row had a gradient that is not finite, the last that "
                f"of {where}: lower lr, look for bad data with todm-sb check-data, or take "
                "--precision=fp32; --nonfinite_patience sets how many are borne"
            )
        return False

    def save(self, path: Path) -> None:
        """Writes the counts: with :meth:`load` the hooks of SpeechBrain's Checkpointer."""
        if rank() == 0:
            counts = {"in_a_row": self.in_a_row, "left_out": self.left_out}
            Path(path).write_text(json.dumps(counts), encoding="utf-8")

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Takes up the counts that :meth:`save` wrote."""
        del end_of_epoch
        vars(self).update(json.loads(Path(path).read_text(encoding="utf-8")))
