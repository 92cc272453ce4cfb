"""The lattice of T frames by U + 1 labels on which a transducer's alignments run, and its loss from
two numbers a node (Graves 2012, arXiv:1211.3711).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from todm_sb.nnet.masking import frame_mask


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

    torchaudio's loss without its own softmax is just this on a vocabulary of two, where blank is
    0 and every target is 1. Its gradient is exact, and minus the probability that an alignment
    takes the arc. On GPUs it leaves the loss of an utterance of one frame or no label unwritten;
    there is but one alignment of these, whose arcs are added up here.

    Args:
        log_probs: (batch, T, U + 1, 2), log p(blank) and log p(next label).
        n_frames: (batch,), integer frames, at most T. Without any, no label can be explained, and
            the loss is infinite, or 0 where there is none; the gradient is zero.
        n_labels: (batch,), integer labels, at most U.
        host: both of them once more; None to read them.

    Returns:
        (batch,), negative log-likelihood in nats, and (batch, T, U + 1), the occupancy of each
        node, without gradient.
    """
    longest = (host or HostLengths.read(n_frames, n_labels)).longest
    n_frames, n_labels = (x.to(log_probs.device) for x in (n_frames, n_labels))
    arcs = log_probs.detach().float()
    loss, gradient = _only_alignment(arcs, n_frames, n_labels)
    if longest[0] > 1 and longest[1] > 0:
        several = (n_frames > 1) & (n_labels > 0)
        within = slice(None), slice(longest[0]), slice(longest[1] + 1)
        summed, summed_gradient = _all_alignments(arcs[within], n_frames, n_labels)
        loss = torch.where(several, summed, loss)
        gradient[within] = torch.where(
            several[:, None, None, None], summed_gradient, gradient[within]
        )
    # Loss and gradient are known by now; a product with the latter hands it on to the graph. Arcs
    # that no alignment takes have none, whatever their value is.
    through = torch.where(gradient == 0, 0, log_probs * gradient).sum((1, 2, 3))
    return loss + (through - through.detach()), -gradient.sum(-1)


def _only_alignment(arcs: Tensor, n_frames: Tensor, n_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and its gradient at the arcs, of utterances of at most one frame or of no label: all
    labels in the first frame, then blanks. Others' are to be ignored."""
    T, n_rows = arcs.shape[1:3]
    own = frame_mask(n_frames, T)
    row, last = torch.arange(n_rows, device=arcs.device), n_labels[:, None, None]
    taken = torch.stack([own & (row == last), own & (row < last)], -1)
    loss = -arcs.where(taken, 0).sum((1, 2, 3))
    return loss.masked_fill((n_frames == 0) & (n_labels > 0), torch.inf), -taken.float()


def _all_alignments(arcs: Tensor, n_frames: Tensor, n_labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torchaudio, of utterances of several frames and any label; T and U are the
    largest. Others' are to be ignored."""
    with torch.inference_mode(False), torch.enable_grad():
        # What inference mode has made takes no part in gradients; its copy does.
        arcs = arcs.clone(memory_format=torch.contiguous_format).requires_grad_()
        loss = torchaudio.functional.rnnt_loss(
            arcs,
            torch.ones(len(arcs), arcs.shape[2] - 1, dtype=torch.int32, device=arcs.device),
            n_frames.clamp(min=1).int().contiguous(),
            n_labels.int().contiguous(),
            blank=0,
            reduction="none",
            fused_log_softmax=False,
        )
        (gradient,) = torch.autograd.grad(loss.sum(), arcs)
    return loss.detach(), gradient
