"""What a subnet is trained for: a sum of named losses, its terms, each with a weight.

A new term is an entry of :meth:`Objective.terms`, or in a recipe::

    objective:
        further:
            smoothness: !new:todm_sb.supernet.objective.Term
                loss: !name:my_module.smoothness
                weight: 0.1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from todm_sb.losses.consistency import ctc_consistency
from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.divergence import Divergence
from todm_sb.losses.lattice import HostLengths, log_softmax
from todm_sb.losses.pruning import Band, Pruning, ctc_lattice, simple_lattice
from todm_sb.losses.transducer import (
    NODE_WEIGHTS,
    LatticeLoss,
    Teacher,
    lattice_loss,
    node_weights,
)
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SubnetConfig
from todm_sb.supernet.losses import SubnetLosses
from todm_sb.supernet.schedule import Weight, at, check_weight
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.utils.errors import ConfigError, quoted


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
class Outputs:
    """What the terms of a subnet are computed of.

    Args:
        model: the supernet.
        trunk: of the batch.
        labels: of the batch.
        encoded: (batch, T, d_model), encoder outputs of the subnet.
        ctc: (batch, T, V), log-probabilities of the CTC head; None where it is not asked.
        lattice: transducer loss and divergence of each utterance.
        simple: transducer loss of the simple joiner; None but for the first subnet, with pruning.
        host: the lengths of trunk and labels, on the host.
    """

    model: Transducer
    trunk: Trunk
    labels: Labels
    encoded: Tensor
    ctc: Tensor | None
    lattice: LatticeLoss
    simple: Tensor | None
    host: HostLengths


@dataclass(frozen=True)
class Term:
    """A term of an objective.

    Args:
        loss: in nats, the mean over utterances; None for a subnet that has none.
        weight: a number, or what gives it after so many reference batches. Where it is 0 the loss
            is not computed.

    Raises:
        ConfigError: if one of them is something else.
    """

    loss: Callable[[Outputs], Tensor | None]
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        check_weight(self.weight, "weight")
        if not callable(self.loss):
            raise ConfigError(f"loss of a term cannot be {quoted(self.loss)}: name a function")


@dataclass(frozen=True)
class Objective:
    """How subnets are trained: ``transducer + ctc_weight * ctc + kd_weight * divergence +
    consistency_weight * consistency``.

    A student's own losses, all but the divergence, count ``student_weight`` times where it is
    taught: with 0 it learns from its teacher alone, as in AlphaNet (arXiv:2102.07954).

    With pruning, one band serves all subnets of a step; where the max subnet's own joiner chooses
    it, all but the first.

    With a consistency weight, each utterance is trained on as two views, masked apart, whose CTC
    distributions are drawn to each other (:func:`ctc_consistency`); a batch then takes twice as
    long. While nothing is masked yet, or the weight is 0, there is one view.

    A weight is a number, or what gives it after so many reference batches of audio, such as
    :class:`todm_sb.supernet.schedule.Schedule`.

    Args:
        ctc_weight: 0 for none; else the model needs a CTC head.
        kd_weight: 0 for none.
        divergence: how students are compared with the teacher.
        kd_nodes: ``occupancy`` or ``uniform``, see :func:`node_weights`.
        pruning: None for the full lattice; else the model needs what chooses the band.
        student_weight: see above; 1 where ``kd_weight`` is 0.
        consistency_weight: 0 for none; else CTC has to have a weight, too. 0.2 in
            arXiv:2410.05101.
        further: terms of other names, which are added.

    Raises:
        ConfigError: on an unknown ``kd_nodes``, a value out of range, a band by a CTC head that
            does not learn, views of one, or a further term that has the name of another.
    """

    ctc_weight: Weight = 0.0
    kd_weight: Weight = 1.0
    divergence: Divergence = field(default_factory=AlphaDivergence)
    kd_nodes: str = "occupancy"
    pruning: Pruning | None = None
    student_weight: Weight = 1.0
    consistency_weight: Weight = 0.0
    further: Mapping[str, Term] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kd_nodes not in NODE_WEIGHTS:
            raise ConfigError(
                f"kd_nodes must be one of {NODE_WEIGHTS}, not {quoted(self.kd_nodes)}"
            )
        for name in ("ctc_weight", "kd_weight", "student_weight", "consistency_weight"):
            check_weight(getattr(self, name), name)
        for name, kind, mend in (
            ("divergence", Divergence, "!new:todm_sb.losses.distillation.AlphaDivergence"),
            ("pruning", Pruning | None, "null or !new:todm_sb.losses.pruning.Pruning {by: ctc}"),
            ("further", Mapping, "a mapping of names to terms"),
        ):
            value = getattr(self, name)
            if isinstance(value, type) or not isinstance(value, kind):
                raise ConfigError(f"{name} cannot be {quoted(value)}: give {mend}")
        for name, used in (
            ("a band by ctc", self._by == "ctc"),
            ("consistency_weight", self.consistency_weight),
        ):
            if used and not self.ctc_weight:
                raise ConfigError(f"{name} needs a CTC head that learns: set ctc_weight above 0")
        for name, term in self.further.items():
            if name in self._own_terms():
                raise ConfigError(f"further: there is a term {name} already: choose another name")
            if not isinstance(term, Term):
                raise ConfigError(f"further: {name} cannot be {quoted(term)}: give a Term")

    def check(self, model: Transducer) -> None:
        """Checks that a model has the heads that the losses need.

        Raises:
            ConfigError: if it lacks one.
        """
        if self.ctc_weight and model.ctc_output is None:
            raise ConfigError("ctc_weight needs a CTC head: set the model's ctc: True")
        if self._by == "simple" and model.simple_joiner is None:
            raise ConfigError("pruning needs a simple joiner: set the model's simple_joiner: True")

    @property
    def _by(self) -> str | None:
        """Who chooses the band, see :class:`Pruning`; None for the full lattice."""
        return self.pruning.by if self.pruning is not None else None

    @property
    def most_views(self) -> int:
        """Of each utterance, whatever the consistency weight comes to be."""
        return 2 if self.consistency_weight else 1

    def views(self, batches: float | None) -> int:
        """Of each utterance that is masked, after so many reference batches; None for the end."""
        return 2 if at(self.consistency_weight, batches) else 1

    def terms(self) -> dict[str, Term]:
        """What is added up, by name."""
        return {**self._own_terms(), **self.further}

    def _own_terms(self) -> dict[str, Term]:
        return {
            "transducer": Term(_transducer, lambda batches: self._lattice_weights(batches)[1]),
            "simple": Term(_simple, lambda batches: self._lattice_weights(batches)[0]),
            "ctc": Term(_ctc, self.ctc_weight),
            "kd": Term(_divergence, self.kd_weight),
            "consistency": Term(_consistency, self.consistency_weight),
        }

    def _lattice_weights(self, batches: float | None) -> tuple[float, float]:
        return self.pruning.weights(batches) if self._by == "simple" else (0.0, 1.0)

    def __call__(
        self,
        model: Transducer,
        trunk: Trunk,
        labels: Labels,
        subnet: SubnetConfig | None,
        lead: Lead | None = None,
        batches: float | None = None,
        host: HostLengths | None = None,
    ) -> tuple[SubnetLosses, Lead]:
        """Losses of one subnet.

        Args:
            model: the supernet.
            trunk: of this batch.
            labels: of this batch.
            subnet: None for the max subnet.
            lead: None for the first subnet, which leads the others.
            batches: reference batches so far, for weights that depend on it; None for the end.
            host: the lengths of trunk and labels; None to read them from the device.

        Returns:
            The losses, and what leads the others: ``lead``, or this subnet where that is None.

        Raises:
            ConfigError: if the model lacks the head that a loss needs.
        """
        encoded = model.encoder.encode(
            trunk.frames, trunk.n_frames, subnet, trunk.shared, trunk.causal
        )
        return self.of_encoded(model, trunk, labels, encoded, lead, batches, host)

    def of_encoded(
        self,
        model: Transducer,
        trunk: Trunk,
        labels: Labels,
        encoded: Tensor,
        lead: Lead | None = None,
        batches: float | None = None,
        host: HostLengths | None = None,
    ) -> tuple[SubnetLosses, Lead]:
        """:meth:`__call__`, of a subnet whose encoder output, (batch, T, d_model), is there."""
        self.check(model)
        host = host or HostLengths.read(trunk.n_frames, labels.lengths)
        projected = model.joiner.project_encoder(encoded)
        weights = (self.ctc_weight, self.consistency_weight)
        asked = (lead is None and self._by == "ctc") or any(at(x, batches) for x in weights)
        ctc = log_softmax(model.ctc_output(encoded)) if asked else None
        simple, band = None, lead and lead.band
        if lead is None:
            simple, band = self._first_band(model, trunk, labels, encoded, ctc, host)
        taught = lead if lead and at(self.kd_weight, batches) else None
        lattice = lattice_loss(
            model.joiner,
            projected,
            trunk.predictor,
            labels.ids,
            trunk.n_frames,
            labels.lengths,
            model.blank,
            taught and taught.teacher,
            self.divergence,
            band,
            host,
        )
        outputs = Outputs(model, trunk, labels, encoded, ctc, lattice, simple, host)
        own = at(self.student_weight, batches) if taught else 1.0
        losses = _weighted_sum(self.terms(), outputs, batches, own)
        return losses, lead or self._lead(outputs, projected, band)

    def _lead(self, outputs: Outputs, projected: Tensor, band: Band | None) -> Lead:
        """What the first subnet leads the others with.

        Args:
            outputs: of the subnet.
            projected: (batch, T, d_joint), its encoder outputs as the joiner sees them.
            band: that it ran in, as will the others unless its joiner chooses theirs; None for
                the full lattice.
        """
        lengths = outputs.trunk.n_frames, outputs.labels.lengths
        occupancy, log_probs = outputs.lattice.occupancy, outputs.lattice.log_probs
        if self._by == "max":
            band = self.pruning.choose(occupancy, *lengths, outputs.host)
            if band is not None:
                # Students come to other nodes than the teacher: what it held of them is no use.
                occupancy, log_probs = band.take(occupancy), None
        node_weight = node_weights(self.kd_nodes, occupancy, *lengths, band)
        return Lead(Teacher(projected.detach(), node_weight, log_probs), band)

    def _first_band(
        self,
        model: Transducer,
        trunk: Trunk,
        labels: Labels,
        encoded: Tensor,
        ctc: Tensor | None,
        host: HostLengths,
    ) -> tuple[Tensor | None, Band | None]:
        """The simple joiner's loss, if there is one, and the band the first subnet runs in."""
        if self._by == "simple":
            return prune(model, self.pruning, encoded, trunk, labels, host)
        if self._by == "ctc":
            lengths = trunk.n_frames, labels.lengths
            occupancy = ctc_lattice(ctc, labels.ids, *lengths, model.blank, host)
            return None, self.pruning.choose(occupancy, *lengths, host)
        return None, None


def _weighted_sum(
    terms: Mapping[str, Term], outputs: Outputs, batches: float | None, own: float
) -> SubnetLosses:
    """The terms that weigh something and that the subnet has; all but the divergence, ``own``
    times. What that makes 0 is for the log alone."""
    total, known = None, {}
    for name, term in terms.items():
        weight = at(term.weight, batches)
        loss = term.loss(outputs) if weight else None
        if loss is not None:
            known[name] = loss
            weight *= 1.0 if name == "kd" else own
            if weight:
                total = weight * loss if total is None else total + weight * loss
    return SubnetLosses(total, known, outputs.lattice.notes)


def _transducer(outputs: Outputs) -> Tensor:
    return outputs.lattice.transducer.mean()


def _simple(outputs: Outputs) -> Tensor | None:
    return outputs.simple


def _ctc(outputs: Outputs) -> Tensor:
    lengths = outputs.trunk.n_frames, outputs.labels
    return ctc_loss(outputs.ctc, *lengths, outputs.model.blank, outputs.host).mean()


def _consistency(outputs: Outputs) -> Tensor | None:
    if outputs.labels.views == 1:
        return None
    return ctc_consistency(outputs.ctc, outputs.trunk.n_frames).mean()


def _divergence(outputs: Outputs) -> Tensor | None:
    divergence = outputs.lattice.divergence
    return None if divergence is None else divergence.mean()


def prune(
    model: Transducer,
    pruning: Pruning,
    encoded: Tensor,
    trunk: Trunk,
    labels: Labels,
    host: HostLengths | None = None,
) -> tuple[Tensor, Band | None]:
    """The simple joiner's loss, the mean over utterances, and the band that it chooses."""
    loss, occupancy = simple_lattice(
        model.simple_joiner.encoder(encoded),
        trunk.simple_predictor,
        labels.ids,
        trunk.n_frames,
        labels.lengths,
        model.blank,
        pruning,
        host,
    )
    return loss.mean(), pruning.choose(occupancy, trunk.n_frames, labels.lengths, host)


def ctc_loss(
    log_probs: Tensor,
    n_frames: Tensor,
    labels: Labels,
    blank: int,
    host: HostLengths | None = None,
) -> Tensor:
    """CTC loss of each utterance in nats: (batch,); 0 where the labels need more frames."""
    host = host or HostLengths.read(n_frames, labels.lengths)
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        labels.ids,
        host.n_frames,
        host.n_labels,
        blank,
        reduction="none",
        zero_infinity=True,
    )
