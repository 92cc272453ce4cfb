"""What searches return."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """What a search found in one utterance.

    Args:
        tokens: label ids.
        frames: the encoder frame at which each label was emitted.
        log_probs: log-probability of each label at its frame.
        score: of the whole, where the search has one: the log-probability of the labels, summed
            over the alignments that the beam held, and what a language model adds to it.
    """

    tokens: list[int]
    frames: list[int]
    log_probs: list[float]
    score: float | None = None
