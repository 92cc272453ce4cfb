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


@dataclass(frozen=True)
class LatticeLoss:
    """Losses of each utterance of a batch.

    Args:
        transducer: (batch,), negative log-likelihood in nats.
        divergence: (batch,), the mean divergence of the valid nodes times the T + U steps of a
            path, or None without a teacher: in nats as well, and no larger for longer lattices.
    """

    transducer: Tensor
    divergence: Tensor | None


def lattice_loss(
    joiner: Joiner,
    encoder: Tensor,
    predictor: Tensor,
    labels: Tensor,
    n_frames: Tensor,
    n_labels: Tensor,
    blank: int = 0,
    teacher: Tensor | None = None,
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
        teacher: (batch, T, d_joint), the teacher's projected encoder output. Teacher and student
            share joiner and predictor, so its logits are had from this alone.
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
        values = nodes(encoder, predictor, teacher)
    else:
        parts = encoder.split(chunk, dim=1)
        teachers = [None] * len(parts) if teacher is None else teacher.split(chunk, dim=1)
        values = torch.cat(
            [
                checkpoint(nodes, part, predictor, t, use_reentrant=False, preserve_rng_state=False)
                for part, t in zip(parts, teachers, strict=True)
            ],
            dim=1,
        )
    loss = two_channel_loss(values[..., :2], n_frames, n_labels)
    if teacher is None:
        return LatticeLoss(loss, None)
    valid = valid_nodes(n_frames, n_labels, *values.shape[1:3])
    mean = (values[..., 2] * valid).sum((1, 2)) / valid.sum((1, 2))
    return LatticeLoss(loss, mean * (n_frames + n_labels))


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


def two_channel_loss(log_probs: Tensor, n_frames: Tensor, n_labels: Tensor) -> Tensor:
    """Transducer loss from two log-probabilities a node.

    torchaudio's loss without its own softmax is just this on a vocabulary of two, where blank is
    0 and every target is 1; its gradient with respect to them is exact.

    Args:
        log_probs: (batch, T, U + 1, 2), log p(blank) and log p(next label).
        n_frames: (batch,), integer frames, the largest of them T.
        n_labels: (batch,), integer labels, the largest of them U.

    Returns:
        (batch,), negative log-likelihood in nats.
    """
    batch, _, rows, _ = log_probs.shape
    ones = torch.ones(batch, rows - 1, dtype=torch.int32, device=log_probs.device)
    return torchaudio.functional.rnnt_loss(
        log_probs.float().contiguous(),
        ones,
        n_frames.int(),
        n_labels.int(),
        blank=0,
        reduction="none",
        fused_log_softmax=False,
    )
