"""The label sequences of a beam search, stored as a tree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis


class Trails:
    """Label sequences that share their fronts: each is one label behind another, -1 the empty one.

    A hypothesis is the number of its trail; nothing is copied when it is extended or kept.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self._frames: list[int] = []

    def add(self, fronts: Tensor, labels: Tensor, log_probs: Tensor, frame: int) -> Tensor:
        """Trails one label longer.

        Args:
            fronts: numbers of the trails before the label.
            labels: of the same shape.
            log_probs: of the labels.
            frame: at which they are emitted.

        Returns:
            Numbers of the new trails, of the same shape.
        """
        begin = len(self._frames)
        self._steps.append((fronts.flatten(), labels.flatten(), log_probs.flatten()))
        self._frames += [frame] * fronts.numel()
        return torch.arange(begin, len(self._frames), device=fronts.device).view_as(fronts)

    def best(self, scores: Tensor, trails: Tensor, nbest: int) -> list[list[Hypothesis]]:
        """The best of each utterance, in falling order.

        Args:
            scores: (batch, hypotheses); minus infinity for none.
            trails: (batch, hypotheses).
            nbest: how many of each utterance; fewer where there are no more, but at least one.
        """
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        ends = trails.gather(1, order)
        # One transfer of each kind.
        columns = [torch.cat(x).tolist() for x in zip(*self._steps, strict=True)]
        steps = list(zip(*columns, self._frames, strict=True)) if columns else []
        found = []
        for row, row_ends in zip(scores[:, :nbest].tolist(), ends.tolist(), strict=True):
            hypotheses = [
                _follow(steps, end, score)
                for score, end in zip(row, row_ends, strict=False)
                if score > -math.inf
            ]
            # No number is the best of a network that gives none: it has no labels.
            found.append(hypotheses or [Hypothesis([], [], [], -math.inf)])
        return found


def _follow(steps: list[tuple[int, int, float, int]], trail: int, score: float) -> Hypothesis:
    """The trail's labels, from the last to the first."""
    labels: list[int] = []
    frames: list[int] = []
    log_probs: list[float] = []
    while trail >= 0:
        trail, label, log_prob, frame = steps[trail]
        labels.append(label)
        frames.append(frame)
        log_probs.append(log_prob)
    return Hypothesis(labels[::-1], frames[::-1], log_probs[::-1], score)
