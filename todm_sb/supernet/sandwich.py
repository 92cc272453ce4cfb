"""One training step of the supernet: the sandwich rule with in-place distillation.

Each step trains the max subnet, the min subnet and a few random ones (Yu & Huang 2019,
arXiv:1903.05134); the max subnet of the very step teaches the others. What all of them share, the
trunk, is computed once: subsampled frames, SSM kernels and predictor outputs. Each subnet runs
backward as soon as its loss is known, down to the trunk, so that memory does not grow with their
number; one backward through the trunk then takes the gathered gradients.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from todm_sb.errors import ConfigError
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.transducer import NODE_WEIGHTS, Teacher, lattice_loss, log_softmax, node_weights
from todm_sb.nnet.predictor import start_with_blank
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.space import SearchSpace, SubnetConfig


@dataclass(frozen=True)
class Labels:
    """Targets of a batch.

    Args:
        ids: (batch, U), integers, padded.
        lengths: (batch,), integer labels of each utterance.
    """

    ids: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Trunk:
    """What the subnets of a step share.

    Args:
        frames: (batch, T, d_model), subsampled frames.
        n_frames: (batch,), integer frames of each utterance.
        spectra: SSM kernel spectra, a list a layer.
        predictor: (batch, U + 1, d_joint), projected predictor outputs.
    """

    frames: Tensor
    n_frames: Tensor
    spectra: list[list[Tensor]]
    predictor: Tensor

    @classmethod
    def compute(
        cls, model: Transducer, features: Tensor, n_features: Tensor, labels: Tensor
    ) -> Trunk:
        """Runs the shared parts.

        Args:
            model: the supernet.
            features: (batch, feature frames, bins).
            n_features: (batch,), integer feature frames of each utterance.
            labels: (batch, U), integer targets.
        """
        frames, n_frames = model.encoder.subsampling(features, n_features)
        outputs, _ = model.predictor(start_with_blank(labels, model.blank))
        return cls(
            frames,
            n_frames,
            model.encoder.spectra(frames.shape[1]),
            model.joiner.project_predictor(outputs),
        )

    def cut(self) -> Trunk:
        """The same values as leaves of a graph of their own, to gather gradients in."""

        def leaf(x: Tensor) -> Tensor:
            return x.detach().requires_grad_(x.requires_grad)

        spectra = [[leaf(s) for s in layer] for layer in self.spectra]
        return Trunk(leaf(self.frames), self.n_frames, spectra, leaf(self.predictor))

    def backward(self, leaves: Trunk) -> None:
        """One backward through the trunk with the gradients gathered in :meth:`cut`'s leaves."""
        pairs = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(self._tensors(), leaves._tensors(), strict=True)
            if leaf.grad is not None
        ]
        torch.autograd.backward(*zip(*pairs, strict=True))

    def _tensors(self) -> list[Tensor]:
        return [self.frames, self.predictor, *(s for layer in self.spectra for s in layer)]


@dataclass(frozen=True)
class SubnetLosses:
    """Losses of one subnet in nats, the mean over utterances.

    Args:
        total: what is minimised.
        transducer: transducer loss.
        ctc: CTC loss, or None.
        divergence: from the teacher, or None.
    """

    total: Tensor
    transducer: Tensor
    ctc: Tensor | None
    divergence: Tensor | None


@dataclass(frozen=True)
class Objective:
    """How subnets are trained: ``transducer + ctc_weight * ctc + kd_weight * divergence``.

    Args:
        ctc_weight: 0 for none; else the model needs a CTC head.
        kd_weight: 0 for none.
        divergence: how students are compared with the teacher.
        kd_nodes: ``occupancy`` or ``uniform``, see :func:`node_weights`.

    Raises:
        ConfigError: on an unknown ``kd_nodes``.
    """

    ctc_weight: float = 0.0
    kd_weight: float = 1.0
    divergence: AlphaDivergence = field(default_factory=AlphaDivergence)
    kd_nodes: str = "occupancy"

    def __post_init__(self) -> None:
        if self.kd_nodes not in NODE_WEIGHTS:
            raise ConfigError(f"kd_nodes must be one of {NODE_WEIGHTS}, not {self.kd_nodes!r}")

    def __call__(
        self,
        model: Transducer,
        trunk: Trunk,
        labels: Labels,
        subnet: SubnetConfig | None,
        teacher: Teacher | None = None,
    ) -> tuple[SubnetLosses, Teacher]:
        """Losses of one subnet.

        Args:
            model: the supernet.
            trunk: of this batch.
            labels: of this batch.
            subnet: None for the max subnet.
            teacher: None for the first subnet, which teaches the others.

        Returns:
            The losses, and what this subnet can teach with.
        """
        encoded = model.encoder.encode(trunk.frames, trunk.n_frames, subnet, trunk.spectra)
        projected = model.joiner.project_encoder(encoded)
        lattice = lattice_loss(
            model.joiner,
            projected,
            trunk.predictor,
            labels.ids,
            trunk.n_frames,
            labels.lengths,
            model.blank,
            teacher if self.kd_weight else None,
            self.divergence,
        )
        total = transducer = lattice.transducer.mean()
        ctc = divergence = None
        if self.ctc_weight:
            ctc = ctc_loss(model, encoded, trunk.n_frames, labels).mean()
            total = total + self.ctc_weight * ctc
        if lattice.divergence is not None:
            divergence = lattice.divergence.mean()
            total = total + self.kd_weight * divergence
        weights = node_weights(self.kd_nodes, lattice.occupancy, trunk.n_frames, labels.lengths)
        return SubnetLosses(total, transducer, ctc, divergence), Teacher(
            projected.detach(), weights
        )


def ctc_loss(model: Transducer, encoded: Tensor, n_frames: Tensor, labels: Labels) -> Tensor:
    """CTC loss of each utterance in nats: (batch,); 0 where the labels need more frames."""
    log_probs = log_softmax(model.ctc_output(encoded)).transpose(0, 1)
    return F.ctc_loss(
        log_probs,
        labels.ids,
        n_frames,
        labels.lengths,
        model.blank,
        reduction="none",
        zero_infinity=True,
    )


def sample_sandwich(space: SearchSpace, n_random: int, rng: random.Random) -> list[SubnetConfig]:
    """Max, min and ``n_random`` random subnets; only max where the space has no other."""
    if space.size == 1:
        return [space.max]
    return [space.max, space.min, *(space.random(rng) for _ in range(n_random))]


def sandwich_backward(
    model: Transducer,
    objective: Objective,
    trunk: Trunk,
    labels: Labels,
    subnets: Sequence[SubnetConfig],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> list[SubnetLosses]:
    """Adds the gradients of all subnets' losses to the parameters' ``grad``.

    Args:
        model: the supernet.
        objective: how each subnet is trained.
        trunk: of this batch, computed with gradients.
        labels: of this batch.
        subnets: the first teaches the others.
        backward: runs a loss backward; the place to scale it.

    Returns:
        The losses of each subnet, detached.
    """
    leaves = trunk.cut()
    teacher = None
    losses = []
    for subnet in subnets:
        subnet_losses, as_teacher = objective(model, leaves, labels, subnet, teacher)
        backward(subnet_losses.total)
        teacher = teacher or as_teacher
        losses.append(_detached(subnet_losses))
    trunk.backward(leaves)
    return losses


def _detached(losses: SubnetLosses) -> SubnetLosses:
    return SubnetLosses(*(None if x is None else x.detach() for x in vars(losses).values()))
