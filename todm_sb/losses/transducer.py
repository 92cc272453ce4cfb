"""The transducer loss (Graves 2012, arXiv:1211.3711) on a lattice of T frames by U + 1 labels.

The loss needs two numbers a node: log p(blank) and log p(next label). They are taken from the
joiner a few frames at a time, and recomputed in the backward pass, so that the logits of all
nodes over the vocabulary never exist together; distillation is measured on the way, where they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.nnet.joiner import Joiner

# Logits held at once: 16 MiB in float32, about what a core's caches and their neighbours stand.
LOGITS_AT_ONCE = 1 << 22


NODE_WEIGHTS = ("occupancy", "uniform")


@dataclass(frozen=True)
class LatticeLoss:
    """Losses of each utterance of a batch.

    Args:
        transducer: (batch,), negative log-likelihood in nats.
        divergence: (batch,), the divergence from the teacher, weighted over nodes, in nats; None
            without a teacher.
        occupancy: (batch, T, U + 1), the probability that an alignment passes each node.
    """

    transducer: Tensor
    divergence: Tensor | None
    occupancy: Tensor


@dataclass(frozen=True)
class Teacher:
    """What distillation needs of a teacher that shares the student's joiner and predictor.

    Args:
        encoder: (batch, T, d_joint), its projected encoder output; its logits are had from this.
        node_weights: (batch, T, U + 1), what each node's divergence counts, from
            :func:`node_weights`.
    """

    encoder: Tensor
    node_weights: Tensor


def node_weights(kind: str, occupancy: Tensor, n_frames: Tensor, n_labels: Tensor) -> Tensor:
    """How much the divergence at each node counts.

    Args:
        kind: ``occupancy`` counts a node as often as the teacher's alignments pass it: the
            divergence is that expected along a path. ``uniform`` counts all nodes of an
            utterance's lattice alike, those far from any alignment among them.
        occupancy: (batch, T, U + 1), the teacher's.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.

    Returns:
        (batch, T, U + 1), zero outside each utterance's lattice; either kind adds up to the
        ``n_frames + n_labels`` steps of a path.

    Raises:
        ValueError: on an unknown kind.
    """
    if kind == "occupancy":
        return occupancy
    if kind == "uniform":
        valid = valid_nodes(n_frames, n_labels, *occupancy.shape[1:]).to(occupancy.dtype)
        share = (n_frames + n_labels) / valid.sum((1, 2))
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
    divergence: AlphaDivergence | None = None,
) -> LatticeLoss:
    """Transducer loss and, with a teacher, distillation on the full lattice.

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

    Returns:
        The losses of each utterance.
    """
    following = following_labels(labels, n_labels, blank)

    def nodes(encoder: Tensor, predictor: Tensor, teacher: Tensor | None) -> Tensor:
        return node_values(joiner, encoder, predictor, following, blank, teacher, divergence)

    logits_a_frame = predictor.shape[0] * predictor.shape[1] * joiner.vocab_size
    chunk = max(1, LOGITS_AT_ONCE // logits_a_frame)
    if chunk >= encoder.shape[1]:
        values = nodes(encoder, predictor, teacher and teacher.encoder)
    else:
        parts = encoder.split(chunk, dim=1)
        teachers = teacher.encoder.split(chunk, dim=1) if teacher else [None] * len(parts)
        values = torch.cat(
            [
                checkpoint(nodes, part, predictor, t, use_reentrant=False, preserve_rng_state=False)
                for part, t in zip(parts, teachers, strict=True)
            ],
            dim=1,
        )
    loss, occupancy = two_channel_loss(values[..., :2], n_frames, n_labels)
    if teacher is None:
        return LatticeLoss(loss, None, occupancy)
    return LatticeLoss(loss, (values[..., 2] * teacher.node_weights).sum((1, 2)), occupancy)


def node_values(
    joiner: Joiner,
    encoder: Tensor,
    predictor: Tensor,
    following: Tensor,
    blank: int,
    teacher: Tensor | None = None,
    divergence: AlphaDivergence | None = None,
) -> Tensor:
    """What the losses need of each node.

    Args:
        joiner: from projected outputs to logits.
        encoder: (batch, T, d_joint).
        predictor: (batch, U + 1, d_joint).
        following: (batch, U + 1), from :func:`following_labels`.
        blank: id of blank.
        teacher: (batch, T, d_joint) or None.
        divergence: needed with a teacher.

    Returns:
        (batch, T, U + 1, 2 or 3): log p(blank), log p(next label) and, with a teacher, the
        divergence from it.
    """
    predictor = predictor.unsqueeze(1)
    # Logarithms of probabilities keep float32 under autocast.
    log_probs = log_softmax(joiner(encoder.unsqueeze(2), predictor))
    index = following.unsqueeze(1).expand(log_probs.shape[:3])
    label = log_probs.gather(-1, index.unsqueeze(-1))
    values = [log_probs[..., blank, None], label]
    if teacher is not None:
        with torch.no_grad():
            teacher_log_probs = log_softmax(joiner(teacher.unsqueeze(2), predictor))
        node_divergence = divergence(log_probs, teacher_log_probs, index, blank)
        values.append(node_divergence.unsqueeze(-1))
    return torch.cat(values, dim=-1)


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, in float32 or better."""
    return F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def following_labels(labels: Tensor, n_labels: Tensor, blank: int) -> Tensor:
    """The label that leaves each lattice row upwards: (batch, U + 1), blank where none does."""
    rows = torch.arange(labels.shape[1] + 1, device=labels.device)
    return F.pad(labels, (0, 1)).masked_fill(rows >= n_labels.unsqueeze(1), blank)


def valid_nodes(n_frames: Tensor, n_labels: Tensor, T: int, rows: int) -> Tensor:
    """(batch, T, rows) booleans: nodes within each utterance's own lattice."""
    frames = torch.arange(T, device=n_frames.device).unsqueeze(1)
    labels = torch.arange(rows, device=n_frames.device)
    return (frames < n_frames[:, None, None]) & (labels <= n_labels[:, None, None])


def two_channel_loss(
    log_probs: Tensor, n_frames: Tensor, n_labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Transducer loss from two log-probabilities a node.

    torchaudio's loss without its own softmax is just this on a vocabulary of two, where blank is
    0 and every target is 1. Its gradient is exact, and minus the probability that an alignment
    takes the arc.

    Args:
        log_probs: (batch, T, U + 1, 2), log p(blank) and log p(next label).
        n_frames: (batch,), integer frames, the largest of them T.
        n_labels: (batch,), integer labels, the largest of them U.

    Returns:
        (batch,), negative log-likelihood in nats, and (batch, T, U + 1), the occupancy of each
        node, without gradient.
    """
    batch, _, rows, _ = log_probs.shape
    arcs = log_probs.detach().float().contiguous().requires_grad_()
    with torch.enable_grad():
        loss = torchaudio.functional.rnnt_loss(
            arcs,
            torch.ones(batch, rows - 1, dtype=torch.int32, device=arcs.device),
            n_frames.int(),
            n_labels.int(),
            blank=0,
            reduction="none",
            fused_log_softmax=False,
        )
        (gradient,) = torch.autograd.grad(loss.sum(), arcs)
    # Loss and gradient are known by now; a product with the latter hands it on to the graph. Arcs
    # that no alignment takes have none, whatever their value is.
    through = torch.where(gradient == 0, 0, log_probs * gradient).sum((1, 2, 3))
    return loss.detach() + (through - through.detach()), -gradient.sum(-1)
