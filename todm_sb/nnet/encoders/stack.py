"""A stack of elastic layers: any subset of them, each at its own choice of every dimension."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import nn

from todm_sb.nnet.sizes import n_bytes, n_parameters
from todm_sb.space import SubnetConfig


class ElasticLayer(Protocol):
    """What a layer of a :class:`LayerStack` can be asked; choices are named as dimensions are."""

    def extract(self, **choices: int) -> nn.Module:
        """A standalone layer of this choice, equal in outputs."""

    def macs(self, n_frames: int, **choices: int) -> int:
        """Multiply-accumulates of so many frames."""


class LayerStack(nn.ModuleList):
    """The layers of an encoder; everything of them that depends on a subnet, but running them.

    Args:
        layers: see :class:`ElasticLayer`.
    """

    def active(self, subnet: SubnetConfig | None = None) -> Iterator[tuple[int, dict[str, int]]]:
        """Index and choices of each layer of a subnet; of all layers, at their largest, if None.

        Raises:
            IndexError: if the subnet names a layer that does not exist.
        """
        for i, choices in subnet.active() if subnet else ((i, {}) for i in range(len(self))):
            if i >= len(self):
                raise IndexError(f"subnet has layer {i}, the encoder {len(self)} layers")
            yield i, choices

    def extract(self, subnet: SubnetConfig) -> LayerStack:
        """The layers of a subnet, each cut to its choices; nothing is shared."""
        layers = LayerStack(self[i].extract(**choices) for i, choices in self.active(subnet))
        layers.training = self.training
        return layers

    def n_parameters(self, subnet: SubnetConfig | None = None) -> int:
        """Parameters of :meth:`extract`, exactly."""
        return self._sum(subnet, "parameters", n_parameters)

    def n_bytes(self, subnet: SubnetConfig | None = None, dtype: str = "float32") -> int:
        """Bytes of the weights of :meth:`extract`; see :func:`todm_sb.nnet.sizes.n_bytes`."""
        return self._sum(subnet, dtype, lambda layer: n_bytes(layer, dtype))

    def macs(self, n_frames: int, subnet: SubnetConfig | None = None) -> int:
        """Multiply-accumulates of so many frames."""
        return sum(self[i].macs(n_frames, **choices) for i, choices in self.active(subnet))

    def _sum(self, subnet: SubnetConfig | None, what: str, size: Callable[[nn.Module], int]) -> int:
        """A size added up over a subnet's layers; each layer at each choice is cut out once, and
        of its shape alone."""
        known = self.__dict__.setdefault("_known", {})
        total = 0
        for i, choices in self.active(subnet):
            key = (what, i, *choices.items())
            if key not in known:
                known[key] = size(copy.deepcopy(self[i]).to("meta").extract(**choices))
            total += known[key]
        return total
