"""What searches return, and a helper that they share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """What was read in one utterance.

    Args:
        tokens: label ids.
        frames: the encoder frame at which each label was emitted.
        log_probs: log-probability of each label at its frame.
        score: of the whole, where the search has one: the log-probability of the labels, summed
            over the alignments that the beam held.
    """

    tokens: list[int]
    frames: list[int]
    log_probs: list[float]
    score: float | None = None


def where_rows(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` in the chosen rows of axis 0, ``old`` in the others."""
    return torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)
