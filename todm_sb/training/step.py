"""What a batch adds to the gradients of an optimizer step, here and in the other processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.losses.lattice import HostLengths
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.losses import SubnetNumbers, to_host
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.pull import distillation_pull
from todm_sb.supernet.sandwich import rows_of_part, sample_sandwich, sandwich_backward
from todm_sb.supernet.schedule import at
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.accumulation import GradientAccumulation
from todm_sb.training.distributed import SUM_DTYPES, all_reduce_gradients, all_reduce_sum
from todm_sb.training.pace import Pace
from todm_sb.training.shared_part import SharedPart
from todm_sb.training.watch import values_of_subnets

# Distillation's pull is measured once in so many reference batches, in the step that completes
# them. It takes as long as two subnets' steps.
PULL_EVERY = 100


@dataclass(frozen=True)
class Trained:
    """A batch that was trained on.

    Args:
        subnets: that were trained, max first.
        losses: of each.
        pull: of distillation at the min subnet, see :func:`distillation_pull`; mostly not measured.
        utterances: of this process.
        utterances_of_all: over all processes.
        seconds: of audio, of this process.
    """

    subnets: list[SubnetConfig]
    losses: list[SubnetNumbers]
    pull: dict[str, float]
    utterances: int
    utterances_of_all: int
    seconds: float

    @property
    def seconds_of_all(self) -> float:
        """About as many as there are over all processes: those of the others are not told."""
        return self.seconds * self.utterances_of_all / self.utterances


def record_of_step(
    trained: Sequence[Trained], lr: float, gradient: dict[str, float]
) -> dict[str, Any]:
    """What :meth:`todm_sb.training.watch.Watch.record` takes down of a step, for all processes.

    Args:
        trained: the batches of the step, one at least; the losses told are those of the last.
        lr: learning rate of the optimizer's next step.
        gradient: see :func:`todm_sb.training.watch.values_of_gradient`.
    """
    last = trained[-1]
    values = {"lr": lr, **values_of_subnets(last.subnets, last.losses), **gradient}
    for batch in trained:
        values |= batch.pull
    return {
        "values": values,
        "utterances": sum(batch.utterances_of_all for batch in trained),
        "seconds": sum(batch.seconds_of_all for batch in trained),
    }


class SandwichStep:
    """Gathers the gradients of the sandwich over batches and processes.

    Args:
        shared_part: computes what the subnets share, of a batch.
        objective: how subnets are trained.
        space: that they are drawn from.
        n_random: random subnets, besides max and min.
        alike: share of random subnets whose layers are all alike.
        warmup: reference batches in which max is trained alone.
        micro_batches: see :func:`todm_sb.supernet.sandwich.sandwich_backward`.
        sum_dtype: see :func:`todm_sb.training.distributed.all_reduce_gradients`.
        reference_batches: that a step of the optimizer counts as.
    """

    def __init__(
        self,
        shared_part: SharedPart,
        objective: Objective,
        space: SearchSpace,
        n_random: int,
        alike: float,
        warmup: float,
        micro_batches: int,
        sum_dtype: torch.dtype | None = None,
        reference_batches: float = 1.0,
    ) -> None:
        self.shared_part = shared_part
        self.objective = objective
        self.space = space
        self.n_random = n_random
        self.alike = alike
        self.warmup = warmup
        self.micro_batches = micro_batches
        self.sum_dtype = sum_dtype
        self.reference_batches = reference_batches
        self.accumulation = GradientAccumulation()

    @classmethod
    def of(cls, modules: Any, hparams: Mapping[str, Any], pace: Pace) -> SandwichStep:
        """That of a recipe.

        Args:
            modules: ``features`` and ``model``.
            hparams: the recipe's keys; :class:`todm_sb.training.brain.TODMBrain` says which.
            pace: of the training.
        """
        return cls(
            SharedPart.of(modules.features, modules.model, hparams),
            hparams["objective"],
            hparams["space"],
            hparams["n_random"],
            hparams.get("uniform_share", 0.0),
            hparams["sandwich_warmup"],
            hparams["micro_batches"],
            SUM_DTYPES[hparams.get("gradient_sums", "fp32")],
            pace.reference_batches,
        )

    def add(
        self,
        batch: SpeechBatch,
        batches: float,
        rng: random.Random,
        backward: Callable[[Tensor], None],
        device: torch.device | str,
    ) -> Trained | None:
        """Adds this process's share of a batch's gradients; every process must call this.

        Losses are means over the utterances of a process; the gradient is the mean over those of
        all processes and over the subnets. A sum over the subnets would be four times as large from
        the step at which the sandwich starts, and be clipped until the optimizer has got used to
        it; how large a gradient is does not matter to ScaledAdam otherwise, nor to Adam.

        Args:
            batch: of this process, which may be empty.
            batches: reference batches so far; see :mod:`todm_sb.training.pace`.
            rng: the same in every process.
            backward: runs a loss backward.
            device: of the model.

        Returns:
            None where the batch is empty.
        """
        subnets = self._draw(batches, rng)
        causal = rng.choice(self.shared_part.model.encoder.modes)
        n = len(batch.id)
        n_of_all = all_reduce_sum(n, device)
        self.accumulation.count(n_of_all)
        if n == 0:
            if n_of_all:
                self.shared_part.nothing()
            return None
        seconds = float(batch.duration.sum())
        trunk, labels = self.shared_part(batch.to(device, non_blocking=True), causal, batches)
        pull = self._pull(trunk, labels, subnets, batches)
        losses = sandwich_backward(
            self.shared_part.model,
            self.objective,
            trunk,
            labels,
            subnets,
            partial(_backward_of_share, n / n_of_all / len(subnets), backward),
            batches,
            self.micro_batches,
        )
        return Trained(subnets, to_host(losses), pull, n, n_of_all, seconds)

    def finish(self, parameters: Iterable[nn.Parameter]) -> None:
        """Makes of what was added the gradient of an optimizer step, the same in every process."""
        parameters = list(parameters)
        all_reduce_gradients(parameters, self.sum_dtype)
        self.accumulation.average(parameters)

    def max_alone(self, batches: float) -> bool:
        """Whether the max subnet is trained alone after so many reference batches."""
        return batches < self.warmup

    def _draw(self, batches: float, rng: random.Random) -> list[SubnetConfig]:
        if self.max_alone(batches):
            return [self.space.max]
        return sample_sandwich(self.space, self.n_random, rng, self.alike)

    def _pull(
        self, trunk: Trunk, labels: Labels, subnets: list[SubnetConfig], batches: float
    ) -> dict[str, float]:
        """How distillation pulls at the second subnet, on one micro-batch; mostly nothing."""
        before, after = (x // PULL_EVERY for x in (batches, batches + self.reference_batches))
        due = before < after and self.accumulation.n_batches == 1  # the first of the step
        if not due or len(subnets) < 2 or not at(self.objective.kd_weight, batches):
            return {}
        part = slice(rows_of_part(len(trunk.frames), self.micro_batches, labels.views))
        host = HostLengths.read(trunk.n_frames, labels.lengths).rows(part)
        labels, trunk = labels.rows(part, host), trunk.cut().rows(part, host)
        model, (teacher, student) = self.shared_part.model, subnets[:2]
        pull = distillation_pull(self.objective, model, trunk, labels, teacher, student, batches)
        values = torch.stack([*pull.values()]).tolist() if pull else []
        return dict(zip(pull, values, strict=True))


def _backward_of_share(share: float, backward: Callable[[Tensor], None], loss: Tensor) -> None:
    backward(share * loss)
