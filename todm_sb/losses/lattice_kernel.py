"""Transducer loss from two numbers a node by torchaudio's kernel, for accelerators, where several
launches a diagonal, as of :mod:`todm_sb.losses.forward_backward`, would cost more than the sums.

torchaudio's loss without its own softmax is just this on a vocabulary of two, where blank is 0 and
every target is 1. It leaves the loss of an utterance of one frame or no label unwritten; there is
but one alignment of these, whose arcs are added up here.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor

from todm_sb.nnet.masking import frame_mask


def kernel_loss(
    arcs: Tensor, n_frames: Tensor, n_labels: Tensor, longest: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Transducer loss and its gradient, in float32.

    Args:
        arcs, n_frames, n_labels: as of :func:`todm_sb.losses.forward_backward.forward_backward`,
            the first float32, all on one device.
        longest: the most frames and the most labels of an utterance.

    Returns:
        As of the same.
    """
    loss, gradient = _only_alignment(arcs, n_frames, n_labels)
    if longest[0] > 1 and longest[1] > 0:
        several = (n_frames > 1) & (n_labels > 0)
        within = slice(None), slice(longest[0]), slice(longest[1] + 1)
        summed, summed_gradient = _all_alignments(arcs[within], n_frames, n_labels)
        loss = torch.where(several, summed, loss)
        gradient[within] = torch.where(
            several[:, None, None, None], summed_gradient, gradient[within]
        )
    return loss, gradient


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
    """The same by the kernel, of utterances of several frames and any label; T and U are the
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
