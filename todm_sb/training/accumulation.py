"""Gradients of several batches, gathered for one step of the optimizer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class GradientAccumulation:
    """Counts the batches whose gradients wait for the optimizer's step."""

    def __init__(self) -> None:
        self.n_batches = 0

    def count(self, n_utterances: int) -> None:
        """Counts a batch of so many utterances over all processes, unless it is empty."""
        self.n_batches += n_utterances > 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the sum over the batches by their number, those that are empty in all processes
        and an epoch's missing ones not counted; what follows belongs to the next step."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.n_batches > 1 and gradients:
            torch._foreach_div_(gradients, self.n_batches)
        self.n_batches = 0
