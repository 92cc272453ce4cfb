"""The lattice of T frames by U + 1 labels on which a transducer's alignments run, and its loss from
two numbers a node (Graves 2012, arXiv:1211.3711).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, in float32 or better."""
    return F.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def following_labels(labels: Tensor, n_labels: Tensor, blank: int) -> Tensor:
    """The label that leaves each lattice row upwards: (batch, U + 1), blank where none does."""
    rows = torch.arange(labels.shape[1] + 1, device=labels.device)
    return F.pad(labels, (0, 1)).masked_fill(rows >= n_labels.unsqueeze(1), blank)


def valid_nodes(n_frames: Tensor, n_labels: Tensor, T: int, rows: Tensor) -> Tensor:
    """Which nodes are within each utterance's own lattice.

    Args:
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        T: frames of the lattice.
        rows: (S,) or (batch, T, S), the row of each node looked at.

    Returns:
        (batch, T, S) booleans.
    """
    frames = torch.arange(T, device=n_frames.device).unsqueeze(1)
    return (frames < n_frames[:, None, None]) & (rows <= n_labels[:, None, None])


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
    arcs = log_probs.detach().float().contiguous()
    with torch.inference_mode(False), torch.enable_grad():
        # What inference mode has made takes no part in gradients; its copy does.
        arcs = (arcs.clone() if arcs.is_inference() else arcs).requires_grad_()
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
