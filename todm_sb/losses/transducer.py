"""The transducer loss (Graves 2012, arXiv:1211.3711) on a lattice of T frames by U + 1 labels.

The loss needs two numbers a node: log p(blank) and log p(next label). They are taken from the
joiner a few frames at a time, and recomputed in the backward pass, so that the logits of all
nodes over the vocabulary never exist together; distillation is measured on the way, where they do.
With a band, the joiner runs on a few labels a frame only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.lattice import following_labels, log_softmax, two_channel_loss, valid_nodes
from todm_sb.losses.pruning import Band
from todm_sb.nnet.joiner import Joiner

# Logits held at once: 16 MiB in float32, about what a core's caches and their neighbours stand.
LOGITS_AT_ONCE = 1 << 22


NODE_WEIGHTS = ("occupancy", "uniform")


@dataclass(frozen=True)
class LatticeLoss:
    """Losses of each utterance of a batch; S is U + 1, or the width of the band.

    Args:
        transducer: (batch,), negative log-likelihood in nats.
        divergence: (batch,), the divergence from the teacher, weighted over nodes, in nats; None
            without a teacher.
        occupancy: (batch, T, S), the probability that an alignment passes each node.
    """

    transducer: Tensor
    divergence: Tensor | None
    occupancy: Tensor


@dataclass(frozen=True)
class Teacher:
    """What distillation needs of a teacher that shares the student's joiner, predictor and band.

    Args:
        encoder: (batch, T, d_joint), its projected encoder output; its logits are had from this.
        node_weights: (batch, T, S), what each node's divergence counts, from
            :func:`node_weights`.
    """

    encoder: Tensor
    node_weights: Tensor


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
    band: Band | None = None,
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

    Returns:
        The losses of each utterance.
    """
    following = following_labels(labels, n_labels, blank)

    def nodes(encoder: Tensor, teacher: Tensor | None, start: Tensor | None) -> Tensor:
        part = None if band is None else Band(start, band.width)
        return node_values(joiner, encoder, predictor, following, blank, teacher, divergence, part)

    inputs = (encoder, teacher and teacher.encoder, band and band.start)
    n_rows = predictor.shape[1]
    logits_a_frame = len(predictor) * (n_rows if band is None else band.width) * joiner.vocab_size
    chunk = max(1, LOGITS_AT_ONCE // logits_a_frame)
    if chunk >= encoder.shape[1]:
        values = nodes(*inputs)
    else:
        n_chunks = -(-encoder.shape[1] // chunk)
        parts = ([None] * n_chunks if x is None else x.split(chunk, dim=1) for x in inputs)
        values = torch.cat(
            [
                checkpoint(nodes, *part, use_reentrant=False, preserve_rng_state=False)
                for part in zip(*parts, strict=True)
            ],
            dim=1,
        )
    arcs = values[..., :2] if band is None else band.spread(values[..., :2], n_rows)
    loss, occupancy = two_channel_loss(arcs, n_frames, n_labels)
    if band is not None:
        occupancy = band.take(occupancy)
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
    band: Band | None = None,
) -> Tensor:
    """What the losses need of each node; S is U + 1, or the width of the band.

    Args:
        joiner: from projected outputs to logits.
        encoder: (batch, T, d_joint).
        predictor: (batch, U + 1, d_joint).
        following: (batch, U + 1), from :func:`following_labels`.
        blank: id of blank.
        teacher: (batch, T, d_joint) or None.
        divergence: needed with a teacher.
        band: the nodes looked at, in these T frames; None for all.

    Returns:
        (batch, T, S, 2 or 3): log p(blank), log p(next label) and, with a teacher, the
        divergence from it.
    """
    index = following.unsqueeze(1).expand(-1, encoder.shape[1], -1)
    if band is None:
        predictor = predictor.unsqueeze(1)
    else:
        predictor, index = band.select(predictor), band.take(index)
    # Logarithms of probabilities keep float32 under autocast.
    log_probs = log_softmax(joiner(encoder.unsqueeze(2), predictor))
    label = log_probs.gather(-1, index.unsqueeze(-1))
    values = [log_probs[..., blank, None], label]
    if teacher is not None:
        with torch.no_grad():
            teacher_log_probs = log_softmax(joiner(teacher.unsqueeze(2), predictor))
        node_divergence = divergence(log_probs, teacher_log_probs, index, blank)
        values.append(node_divergence.unsqueeze(-1))
    return torch.cat(values, dim=-1)
