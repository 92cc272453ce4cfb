"""The lattice of T frames by U + 1 labels on which a transducer's alignments run, and its loss from
two numbers a node (Graves 2012, arXiv:1211.3711).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from todm_sb.losses.forward_backward import forward_backward
from todm_sb.losses.lattice_kernel import kernel_loss
from todm_sb.nnet.masking import frame_mask
from todm_sb.utils.device_kind import kind_of


class HostLengths(NamedTuple):
    """The lengths of a batch where Python reads them without waiting for the device.

    Args:
        n_frames: frames of each utterance.
        n_labels: labels of each utterance.
    """

    n_frames: list[int]
    n_labels: list[int]

    @classmethod
    def read(cls, n_frames: Tensor, n_labels: Tensor) -> HostLengths:
        """From (batch,) integers each; a device is waited for once."""
        return cls(*torch.stack([n_frames, n_labels.to(n_frames.device)]).tolist())

    @property
    def longest(self) -> tuple[int, int]:
        """The most frames and the most labels of an utterance; 0 where there is none."""
        return max(self.n_frames, default=0), max(self.n_labels, default=0)

    def rows(self, part: slice) -> HostLengths:
        """Those of some utterances."""
        return HostLengths(self.n_frames[part], self.n_labels[part])


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
    return frame_mask(n_frames, T) & (rows <= n_labels[:, None, None])


def two_channel_loss(
    log_probs: Tensor, n_frames: Tensor, n_labels: Tensor, host: HostLengths | None = None
) -> tuple[Tensor, Tensor]:
    """Transducer loss from two log-probabilities a node.

    Its gradient is exact, and minus the probability that an alignment takes the arc. On a CPU both
    are summed up in float64, elsewhere in float32.

    Args:
        log_probs: (batch, T, U + 1, 2), log p(blank) and log p(next label).
        n_frames: (batch,), integer frames, at most T. Without any, no label can be explained, and
            the loss is infinite, or 0 where there is none; the gradient is zero.
        n_labels: (batch,), integer labels, at most U.
        host: both of them once more; None to read them from the device.

    Returns:
        (batch,), negative log-likelihood in nats, and (batch, T, U + 1), the occupancy of each
        node, without gradient; both float32, or float64 where ``log_probs`` is.
    """
    arcs = log_probs.detach()
    lengths = n_frames.to(arcs.device), n_labels.to(arcs.device)
    if kind_of(arcs.device) == "cpu":
        loss, gradient = forward_backward(arcs, *lengths)
    else:
        longest = (host or HostLengths.read(n_frames, n_labels)).longest
        loss, gradient = kernel_loss(arcs.float(), *lengths, longest)
    accurate = torch.promote_types(arcs.dtype, torch.float32)
    gradient = gradient.to(accurate)
    return _WithGradient.apply(log_probs, loss.to(accurate), gradient), -gradient.sum(-1)


class _WithGradient(torch.autograd.Function):
    """A loss of each utterance whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = x.dtype
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad[:, None, None, None] * gradient).to(ctx.dtype), None, None
