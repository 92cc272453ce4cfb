"""Losses of the subnets of a step: where they are computed, and on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor


@dataclass(frozen=True)
class SubnetLosses:
    """Losses of one subnet in nats, the mean over utterances.

    Args:
        total: what is minimised.
        terms: what it is the sum of, by name and without weights; only those that this subnet has.
        notes: what the divergence has to tell, see :meth:`Divergence.summary`.
    """

    total: Tensor
    terms: dict[str, Tensor]
    notes: dict[str, Tensor] = field(default_factory=dict)

    def detached(self, share: float) -> SubnetLosses:
        """A share of them, without their graph."""

        def part(losses: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: share * loss.detach() for name, loss in losses.items()}

        return SubnetLosses(share * self.total.detach(), part(self.terms), part(self.notes))

    @classmethod
    def sum(cls, parts: Sequence[SubnetLosses]) -> SubnetLosses:
        """Those of a batch from those of its parts, which have the same names."""

        def added(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: reduce(add, (part[name] for part in losses)) for name in losses[0]}

        total = reduce(add, (part.total for part in parts))
        return cls(total, added([p.terms for p in parts]), added([p.notes for p in parts]))


@dataclass(frozen=True)
class SubnetNumbers:
    """The same as :class:`SubnetLosses` on the host, for logs."""

    total: float
    terms: dict[str, float]
    notes: dict[str, float] = field(default_factory=dict)


def to_host(losses: Sequence[SubnetLosses]) -> list[SubnetNumbers]:
    """Brings the losses of a step to the host, all at once: a device is waited for but once.

    Args:
        losses: of each subnet.
    """
    tensors = [t for x in losses for t in (x.total, *x.terms.values(), *x.notes.values())]
    values = iter(torch.stack(tensors).tolist() if tensors else [])

    def taken(names: Iterable[str]) -> dict[str, float]:
        return {name: next(values) for name in names}

    return [SubnetNumbers(next(values), taken(x.terms), taken(x.notes)) for x in losses]
