"""The running mean of a network's weights over the steps of an epoch, as icefall's recipes have it
(``model_avg``; the idea is that of arXiv:1803.05407).

At a high learning rate weights jump to and fro around what they learn; their mean does not. It is
what validation measures, what checkpoints are chosen by, and of which those of the best epochs are
averaged once more (:func:`todm_sb.training.checkpoints.recover_average`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from todm_sb.training.checkpoints import MEAN
from todm_sb.training.distributed import rank


class WeightAverage:
    """Mean of the weights of an epoch; what is no floating-point number is as it is at last.

    Args:
        model: the network.
        every: the steps of the optimizer from one weight in the mean to the next; None for no mean:
            then nothing here does anything.
    """

    def __init__(self, model: nn.Module, every: int | None) -> None:
        self.model = model
        self.every = every
        self.n = 0
        self.mean: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Begins a new mean."""
        self.n = 0

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes the weights into the mean, if it is their turn.

        Args:
            step: of the optimizer, which has been taken.
        """
        if self.every and step % self.every == 0:
            self._add()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the network's weights and their mean, in place: before validation, and after.

        An epoch too short to have a mean has that of its last weights.
        """
        if not self.every:
            return
        if not self.n:
            self._add()
        own = self._weights()
        before = [tensor.clone() for tensor in own.values()]
        for name, tensor in own.items():
            tensor.copy_(self.mean[name])
        self.mean = dict(zip(own, before, strict=True))

    def _add(self) -> None:
        own = self._weights()
        self.n += 1
        if self.n == 1:
            self.mean = {name: tensor.clone() for name, tensor in own.items()}
        else:
            torch._foreach_lerp_([self.mean[x] for x in own], [*own.values()], 1 / self.n)

    def _weights(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}

    def save(self, path: Path) -> None:
        """Writes the mean, in a whole state of the network: with :meth:`load` the hooks of
        SpeechBrain's Checkpointer."""
        if rank() == 0:
            state: dict[str, Any] = {**self.model.state_dict(), **(self.mean if self.n else {})}
            torch.save({"n": self.n, MEAN: state}, path)

    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Takes up, in every process, what :meth:`save` wrote in the middle of an epoch."""
        self.n = 0
        if not end_of_epoch:
            saved = torch.load(path, map_location="cpu")
            own = self._weights()
            self.n = saved["n"]
            self.mean = {name: saved[MEAN][name].to(tensor.device) for name, tensor in own.items()}
