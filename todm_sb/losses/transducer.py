"""The transducer loss (Graves 2012, arXiv:1211.3711) on the full or on a pruned lattice, and
distillation on its nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from todm_sb.losses.divergence import Divergence
from todm_sb.losses.lattice import HostLengths, following_labels, two_channel_loss, valid_nodes
from todm_sb.losses.nodes import Nodes, TeacherNodes, node_values
from todm_sb.losses.pruning import Band
from todm_sb.nnet.joiner import Joiner

NODE_WEIGHTS = ("occupancy", "uniform")


@dataclass(frozen=True)
class LatticeLoss:
    """Losses of each utterance of a batch; S is U + 1, or the width of the band.

    Args:
        transducer: (batch,), negative log-likelihood in nats.
        divergence: (batch,), the divergence from the teacher, weighted over nodes, in nats; None
            without a teacher.
        occupancy: (batch, T, S), the probability that an alignment passes each node.
        log_probs: of all nodes, for students, see :class:`Teacher`; None where they are too many.
        notes: what the divergence has to tell besides, see :meth:`Divergence.summary`; nothing
            without a teacher.
    """

    transducer: Tensor
    divergence: Tensor | None
    occupancy: Tensor
    log_probs: Tensor | None
    notes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Teacher:
    """What distillation needs of a teacher that shares the student's joiner, predictor and band.

    Args:
        encoder: (batch, T, d_joint), its projected encoder output.
        node_weights: (batch, T, S), what each node's divergence counts, from
            :func:`node_weights`.
        log_probs: what its own loss had of them, or None to compute them anew.
    """

    encoder: Tensor
    node_weights: Tensor
    log_probs: Tensor | None = None


def node_weights(
    kind: str, occupancy: Tensor, n_frames: Tensor, n_labels: Tensor, band: Band | None = None
) -> Tensor:
    """How much the divergence at each node counts.

    Args:
        kind: ``occupancy`` counts a node as often as the teacher's alignments pass it: the
            divergence is that expected along a path. ``uniform`` counts all nodes of an
            utterance's lattice (within the band) alike, those far from any alignment among them.
        occupancy: (batch, T, S), the teacher's.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        band: the nodes looked at; None for all.

    Returns:
        (batch, T, S), zero outside each utterance's lattice; either kind adds up to the
        ``n_frames + n_labels`` steps of a path.

    Raises:
        ValueError: on an unknown kind.
    """
    if kind == "occupancy":
        return occupancy
    if kind == "uniform":
        T, S = occupancy.shape[1:]
        rows = torch.arange(S, device=occupancy.device) if band is None else band.rows
        valid = valid_nodes(n_frames, n_labels, T, rows).to(occupancy.dtype)
        share = (n_frames + n_labels) / valid.sum((1, 2)).clamp(min=1)
        return valid * share[:, None, None]
    raise ValueError(f"node weights must be one of {NODE_WEIGHTS}, not {kind!r}")


def lattice_loss(
    joiner: Joiner,
    encoder: Tensor,
    predictor: Tensor,
    labels: Tensor,
    n_frames: Tensor,
    n_labels: Tensor,
    blank: int = 0,
    teacher: Teacher | None = None,
    divergence: Divergence | None = None,
    band: Band | None = None,
    host: HostLengths | None = None,
) -> LatticeLoss:
    """Transducer loss and, with a teacher, distillation.

    Args:
        joiner: from projected outputs to logits.
        encoder: (batch, T, d_joint), projected encoder output.
        predictor: (batch, U + 1, d_joint), projected predictor output.
        labels: (batch, U), integer targets; padding is ignored.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        blank: id of blank.
        teacher: None for no distillation.
        divergence: how the teacher's nodes are compared; needed with a teacher.
        band: the nodes that alignments may pass; None for all.
        host: the lengths once more; None to read them from the device.

    Returns:
        The losses of each utterance.
    """
    nodes = Nodes(following_labels(labels, n_labels, blank), blank, band, divergence)
    teacher_nodes = None
    if teacher is not None:
        teacher_nodes = TeacherNodes(teacher.encoder, teacher.log_probs)
    values, log_probs = node_values(joiner, encoder, predictor, nodes, teacher_nodes)
    arcs = values[..., :2]
    if band is not None:
        arcs = band.spread(arcs, predictor.shape[1])
    loss, occupancy = two_channel_loss(arcs, n_frames, n_labels, host)
    if band is not None:
        occupancy = band.take(occupancy)
    if teacher is None or divergence is None:
        return LatticeLoss(loss, None, occupancy, log_probs)
    weights = teacher.node_weights
    notes = divergence.summary(values[..., 3:].detach(), weights)
    divergences = (values[..., 2] * weights).sum((1, 2))
    return LatticeLoss(loss, divergences, occupancy, log_probs, notes)
