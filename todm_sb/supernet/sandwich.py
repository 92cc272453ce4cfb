"""One training step of the supernet: the sandwich rule with in-place distillation.

Each step trains the max subnet, the min subnet and a few random ones (Yu & Huang 2019,
arXiv:1903.05134); the max subnet of the very step teaches the others. What all of them share, the
trunk, is computed once: subsampled frames, SSM kernels and predictor outputs. Each subnet runs
backward as soon as its loss is known, down to the trunk, so that memory does not grow with their
number; one backward through the trunk then takes the gathered gradients. They can do so for a part
of the batch at a time, a micro-batch: their activations then take so many times less memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from todm_sb.errors import ConfigError, quoted
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.lattice import log_softmax
from todm_sb.losses.pruning import Band, Pruning, ctc_lattice, simple_lattice
from todm_sb.losses.transducer import NODE_WEIGHTS, Teacher, lattice_loss, node_weights
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

    def rows(self, part: slice) -> Labels:
        """Those of some utterances, without padding that none of them needs."""
        lengths = self.lengths[part]
        return Labels(self.ids[part, : lengths.max()], lengths)


@dataclass(frozen=True)
class Trunk:
    """What the subnets of a step share.

    Args:
        frames: (batch, T, d_model), subsampled frames.
        n_frames: (batch,), integer frames of each utterance.
        spectra: SSM kernel spectra, a list a layer.
        predictor: (batch, U + 1, d_joint), projected predictor outputs.
        simple_predictor: (batch, U + 1, V), the same for the simple joiner; None without one.
    """

    frames: Tensor
    n_frames: Tensor
    spectra: list[list[Tensor]]
    predictor: Tensor
    simple_predictor: Tensor | None = None

    @classmethod
    def compute(
        cls,
        model: Transducer,
        features: Tensor,
        n_features: Tensor,
        labels: Tensor,
        causal: bool = False,
    ) -> Trunk:
        """Runs the shared parts.

        Args:
            model: the supernet.
            features: (batch, feature frames, bins).
            n_features: (batch,), integer feature frames of each utterance.
            labels: (batch, U), integer targets.
            causal: run a dual-mode network as a causal one.
        """
        frames, n_frames = model.encoder.subsampling(features, n_features)
        outputs, _ = model.predictor(start_with_blank(labels, model.blank))
        return cls(
            frames,
            n_frames,
            model.encoder.spectra(frames.shape[1], causal),
            model.joiner.project_predictor(outputs),
            model.simple_joiner and model.simple_joiner.predictor(outputs),
        )

    def cut(self) -> Trunk:
        """The same values as leaves of a graph of their own, to gather gradients in."""

        def leaf(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.detach().requires_grad_(x.requires_grad)

        return Trunk(
            leaf(self.frames),
            self.n_frames,
            [[leaf(s) for s in layer] for layer in self.spectra],
            leaf(self.predictor),
            leaf(self.simple_predictor),
        )

    def rows(self, part: slice, n_labels: int) -> Trunk:
        """What the subnets share for some utterances, without padding that none of them needs.

        Args:
            part: the utterances.
            n_labels: of the one with the most.
        """
        n_frames, nodes = self.n_frames[part], (part, slice(n_labels + 1))
        return replace(
            self,
            frames=self.frames[part, : n_frames.max()],
            n_frames=n_frames,
            predictor=self.predictor[nodes],
            simple_predictor=None
            if self.simple_predictor is None
            else self.simple_predictor[nodes],
        )

    def backward(self, leaves: Trunk) -> None:
        """One backward through the trunk with the gradients gathered in :meth:`cut`'s leaves."""
        pairs = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(self._tensors(), leaves._tensors(), strict=True)
            if leaf is not None and leaf.grad is not None
        ]
        torch.autograd.backward(*zip(*pairs, strict=True))

    def _tensors(self) -> list[Tensor | None]:
        spectra = [s for layer in self.spectra for s in layer]
        return [self.frames, self.predictor, self.simple_predictor, *spectra]


@dataclass(frozen=True)
class SubnetLosses:
    """Losses of one subnet in nats, the mean over utterances.

    Args:
        total: what is minimised.
        transducer: transducer loss.
        ctc: CTC loss, or None.
        divergence: from the teacher, or None.
        simple: transducer loss of the simple joiner, or None.
        sides: (alphas,), at what share of the nodes each side of the divergence is the larger
            one, or None.
    """

    total: Tensor
    transducer: Tensor
    ctc: Tensor | None
    divergence: Tensor | None
    simple: Tensor | None = None
    sides: Tensor | None = None


@dataclass(frozen=True)
class Lead:
    """What the first subnet of a step hands to the others.

    Args:
        teacher: its outputs.
        band: the lattice nodes looked at; None for all.
    """

    teacher: Teacher
    band: Band | None


@dataclass(frozen=True)
class Objective:
    """How subnets are trained: ``transducer + ctc_weight * ctc + kd_weight * divergence``.

    With pruning, one band serves all subnets of a step; where the max subnet's own joiner chooses
    it, all but the first.

    Args:
        ctc_weight: 0 for none; else the model needs a CTC head.
        kd_weight: 0 for none.
        divergence: how students are compared with the teacher.
        kd_nodes: ``occupancy`` or ``uniform``, see :func:`node_weights`.
        pruning: None for the full lattice; else the model needs a simple joiner.

    Raises:
        ConfigError: on an unknown ``kd_nodes``, or a value out of range.
    """

    ctc_weight: float = 0.0
    kd_weight: float = 1.0
    divergence: AlphaDivergence = field(default_factory=AlphaDivergence)
    kd_nodes: str = "occupancy"
    pruning: Pruning | None = None

    def __post_init__(self) -> None:
        if self.kd_nodes not in NODE_WEIGHTS:
            raise ConfigError(
                f"kd_nodes must be one of {NODE_WEIGHTS}, not {quoted(self.kd_nodes)}"
            )
        for name in ("ctc_weight", "kd_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must not be negative, not {quoted(getattr(self, name))}")
        for name, kind in (("divergence", AlphaDivergence), ("pruning", Pruning | None)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} cannot be {quoted(getattr(self, name))}")
        if self.pruning is not None and self.pruning.by == "ctc" and not self.ctc_weight:
            raise ConfigError("a band by ctc needs a CTC head that learns: set ctc_weight above 0")

    def __call__(
        self,
        model: Transducer,
        trunk: Trunk,
        labels: Labels,
        subnet: SubnetConfig | None,
        lead: Lead | None = None,
        step: int | None = None,
    ) -> tuple[SubnetLosses, Lead]:
        """Losses of one subnet.

        Args:
            model: the supernet.
            trunk: of this batch.
            labels: of this batch.
            subnet: None for the max subnet.
            lead: None for the first subnet, which leads the others.
            step: optimizer steps so far, for the warm-up of pruning; None for its end.

        Returns:
            The losses, and what this subnet would lead others with.

        Raises:
            ConfigError: if the model lacks the head that a loss needs.
        """
        encoded = model.encoder.encode(trunk.frames, trunk.n_frames, subnet, trunk.spectra)
        projected = model.joiner.project_encoder(encoded)
        pruned_weight, simple_total, simple, band = 1.0, 0.0, None, lead and lead.band
        lengths = trunk.n_frames, labels.lengths
        ctc_log_probs = ctc_head(model, encoded) if self.ctc_weight else None
        by = self.pruning and self.pruning.by
        if by == "simple":
            simple_weight, pruned_weight = self.pruning.weights(step)
            if lead is None:
                simple, band = prune(model, self.pruning, encoded, trunk, labels)
                simple_total = simple_weight * simple
        elif by == "ctc" and lead is None:
            occupancy = ctc_lattice(ctc_log_probs, labels.ids, *lengths, model.blank)
            band = self.pruning.choose(occupancy, *lengths)
        lattice = lattice_loss(
            model.joiner,
            projected,
            trunk.predictor,
            labels.ids,
            trunk.n_frames,
            labels.lengths,
            model.blank,
            lead.teacher if lead and self.kd_weight else None,
            self.divergence,
            band,
        )
        transducer = lattice.transducer.mean()
        total = pruned_weight * transducer + simple_total
        ctc = divergence = None
        if self.ctc_weight:
            ctc = ctc_loss(ctc_log_probs, trunk.n_frames, labels, model.blank).mean()
            total = total + self.ctc_weight * ctc
        if lattice.divergence is not None:
            divergence = lattice.divergence.mean()
            total = total + self.kd_weight * divergence
        losses = SubnetLosses(total, transducer, ctc, divergence, simple, lattice.sides)
        occupancy, log_probs = lattice.occupancy, lattice.log_probs
        if by == "max" and lead is None:
            band = self.pruning.choose(occupancy, *lengths)
            if band is not None:
                # Students come to other nodes than the teacher: what it held of them is no use.
                occupancy, log_probs = band.take(occupancy), None
        weights = node_weights(self.kd_nodes, occupancy, *lengths, band)
        return losses, Lead(Teacher(projected.detach(), weights, log_probs), band)


def prune(
    model: Transducer, pruning: Pruning, encoded: Tensor, trunk: Trunk, labels: Labels
) -> tuple[Tensor, Band | None]:
    """The simple joiner's loss, the mean over utterances, and the band that it chooses.

    Raises:
        ConfigError: if the model has no simple joiner.
    """
    if model.simple_joiner is None:
        raise ConfigError("pruning needs a simple joiner: set the model's simple_joiner: True")
    loss, occupancy = simple_lattice(
        model.simple_joiner.encoder(encoded),
        trunk.simple_predictor,
        labels.ids,
        trunk.n_frames,
        labels.lengths,
        model.blank,
        pruning,
    )
    return loss.mean(), pruning.choose(occupancy, trunk.n_frames, labels.lengths)


def ctc_head(model: Transducer, encoded: Tensor) -> Tensor:
    """The CTC head's log-probabilities: (batch, T, V).

    Raises:
        ConfigError: if the model has no CTC head.
    """
    if model.ctc_output is None:
        raise ConfigError("ctc_weight needs a CTC head: set the model's ctc: True")
    return log_softmax(model.ctc_output(encoded))


def ctc_loss(log_probs: Tensor, n_frames: Tensor, labels: Labels, blank: int) -> Tensor:
    """CTC loss of each utterance in nats: (batch,); 0 where the labels need more frames."""
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        labels.ids,
        n_frames,
        labels.lengths,
        blank,
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
    step: int | None = None,
    micro_batches: int = 1,
) -> list[SubnetLosses]:
    """Adds the gradients of all subnets' losses to the parameters' ``grad``.

    Args:
        model: the supernet.
        objective: how each subnet is trained.
        trunk: of this batch, computed with gradients.
        labels: of this batch.
        subnets: the first leads the others.
        backward: runs a loss backward; the place to scale it.
        step: optimizer steps so far, see :class:`Objective`.
        micro_batches: parts of the batch that the subnets run on in turn.

    Returns:
        The losses of each subnet, detached.

    Raises:
        ConfigError: if there is no micro-batch.
    """
    if micro_batches < 1:
        raise ConfigError(f"micro_batches must be at least 1, not {micro_batches}")
    leaves = trunk.cut()
    batch = len(trunk.frames)
    losses: list[list[SubnetLosses]] = []
    for part, share in _parts(batch, micro_batches):
        part_labels = labels.rows(part)
        part_trunk = leaves.rows(part, part_labels.ids.shape[1])
        lead = None
        losses.append([])
        for subnet in subnets:
            subnet_losses, own_lead = objective(model, part_trunk, part_labels, subnet, lead, step)
            backward(share * subnet_losses.total)
            lead = lead or own_lead
            losses[-1].append(_detached(subnet_losses, share))
    trunk.backward(leaves)
    return [_sum(parts) for parts in zip(*losses, strict=True)]


def _parts(batch: int, n: int) -> Iterator[tuple[slice, float]]:
    """Up to n parts of a batch, as equal as can be, and the share of each."""
    size = math.ceil(batch / n)
    for begin in range(0, batch, size):
        end = min(begin + size, batch)
        yield slice(begin, end), (end - begin) / batch


def _detached(losses: SubnetLosses, share: float) -> SubnetLosses:
    return SubnetLosses(*(None if x is None else share * x.detach() for x in vars(losses).values()))


def _sum(parts: Sequence[SubnetLosses]) -> SubnetLosses:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return SubnetLosses(*(None if column[0] is None else sum(column) for column in columns))
