"""One training step of the supernet: the sandwich rule with in-place distillation.

Each step trains the max subnet, the min subnet and a few random ones (Yu & Huang 2019,
arXiv:1903.05134); the max subnet of the very step teaches the others. What all of them share, the
trunk, is computed once: subsampled frames, what the encoder shares, and predictor outputs. Each
subnet runs backward as soon as its loss is known, down to the trunk, so that memory does not grow
with their number; one backward through the trunk then takes the gathered gradients. They can do so
for a part of the batch at a time, a micro-batch: their activations then take so many times less
memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from todm_sb.losses.lattice import HostLengths
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.gradients import GradientSum
from todm_sb.supernet.losses import SubnetLosses
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.utils.errors import ConfigError


def sample_sandwich(
    space: SearchSpace, n_random: int, rng: random.Random, alike: float = 0.0
) -> list[SubnetConfig]:
    """Max, min and ``n_random`` random subnets; only max where the space has no other.

    Args:
        space: that they are drawn from.
        n_random: how many random ones.
        rng: that draws.
        alike: see :meth:`SearchSpace.random`.
    """
    if space.size == 1:
        return [space.max]
    return [space.max, space.min, *(space.random(rng, alike) for _ in range(n_random))]


def sandwich_backward(
    model: Transducer,
    objective: Objective,
    trunk: Trunk,
    labels: Labels,
    subnets: Sequence[SubnetConfig],
    backward: Callable[[Tensor], None] = Tensor.backward,
    batches: float | None = None,
    micro_batches: int = 1,
    host: HostLengths | None = None,
) -> list[SubnetLosses]:
    """Adds the gradients of all subnets' losses to the parameters' ``grad``.

    Args:
        model: the supernet.
        objective: how each subnet is trained.
        trunk: of this batch, computed with gradients.
        labels: of this batch.
        subnets: the first leads the others.
        backward: runs a loss backward; the place to scale it.
        batches: reference batches so far, see :class:`Objective`.
        micro_batches: parts of the batch that the subnets run on in turn.
        host: the lengths of trunk and labels; None to read them from the device.

    Returns:
        The losses of each subnet, detached.

    Raises:
        ConfigError: if there is no micro-batch.
    """
    if micro_batches < 1:
        raise ConfigError(f"micro_batches must be at least 1, not {micro_batches}")
    leaves = trunk.cut()
    batch = len(trunk.frames)
    host_of_all = host or HostLengths.read(trunk.n_frames, labels.lengths)
    gradients = GradientSum(model.parameters())
    losses: list[list[SubnetLosses]] = []
    for part, share in _parts(batch, micro_batches, labels.views):
        host = host_of_all.rows(part)
        part_labels, part_trunk = labels.rows(part, host), leaves.rows(part, host)
        lead = None
        losses.append([])
        for subnet in subnets:
            subnet_losses, lead = objective(
                model, part_trunk, part_labels, subnet, lead, batches, host
            )
            backward(share * subnet_losses.total)
            gradients.take()
            losses[-1].append(subnet_losses.detached(share))
    trunk.backward(leaves)
    gradients.give()
    return [SubnetLosses.sum(parts) for parts in zip(*losses, strict=True)]


def rows_of_part(batch: int, n: int, views: int) -> int:
    """Rows of a micro-batch, with all views of an utterance in one.

    Args:
        batch: rows of the batch.
        n: micro-batches.
        views: of each utterance.
    """
    return math.ceil(batch / views / n) * views


def _parts(batch: int, n: int, views: int) -> Iterator[tuple[slice, float]]:
    """Up to n parts of a batch, as equal as can be, and the share of each."""
    size = rows_of_part(batch, n, views)
    for begin in range(0, batch, size):
        end = min(begin + size, batch)
        yield slice(begin, end), (end - begin) / batch
