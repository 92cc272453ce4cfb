"""Sums over all alignments of a lattice, from both of its ends (Graves 2012, arXiv:1211.3711,
section 2.4), for CPUs.

The nodes of a diagonal have as many frames and labels together, and their sums follow from those of
the diagonal before, all at once. What comes after a node is what comes before it in the lattice
turned around: both run in one loop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def forward_backward(arcs: Tensor, n_frames: Tensor, n_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Transducer loss and its gradient, summed up in float64.

    Args:
        arcs: (batch, T, U + 1, 2), log p(blank) and log p(next label) of each node.
        n_frames: (batch,), integer frames of each utterance, at most T.
        n_labels: (batch,), integer labels of each utterance, at most U.

    Returns:
        (batch,), negative log-likelihood in nats, infinite where there is no alignment; and
        (batch, T, U + 1, 2), its gradient: minus the probability that an alignment takes the arc.
    """
    batch, T, n_rows = arcs.shape[:3]
    own, blank, label = _with_one_end(arcs.double(), n_frames, n_labels)
    # Of each arc, at the diagonal and the row that it leads to.
    through = blank.new_full((2, T + n_rows + 1, 2 * batch, n_rows + 1), -torch.inf)
    through_blank = _nodes(through[0, 1:, :batch], n_rows)
    through_label = _nodes(through[1, 1:, :batch, 1:], n_rows)
    through_blank.copy_(blank)
    through_label.copy_(label)
    _nodes(through[0, :-1, batch:], n_rows).copy_(blank.flip(1, 2))
    _nodes(through[1, :-1, batch:], n_rows).copy_(label.flip(1, 2))
    sums = _sum(through[:, :-1, :, :-1])
    after = _nodes(sums[:, batch:], n_rows).flip(1, 2)
    likelihood = after[:, 0, 0]
    after = after - likelihood.masked_fill(likelihood == -torch.inf, 0)[:, None, None]
    gradient = torch.zeros_like(arcs, dtype=torch.float64)
    gradient[..., 0] = (through_blank[:, :-1] + after[:, 1:]).exp_().neg_()
    gradient[..., :-1, 1] = (through_label[:, :-1, :-1] + after[:, :-1, 1:]).exp_().neg_()
    return -likelihood, gradient.masked_fill_(~own[:, :-1, :, None], 0)


def _with_one_end(
    arcs: Tensor, n_frames: Tensor, n_labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Lattices that all end in node (T, U): from its own end each has one way there, of
    probability 1.

    Returns:
        (batch, T + 1, U + 1), which nodes are an utterance's own; the same of blanks; of labels,
        log 0 where there is none.
    """
    T, n_rows = arcs.shape[1:3]
    blank, label = F.pad(arcs, (0, 0, 0, 0, 0, 1)).unbind(-1)
    frame, row = torch.arange(T + 1)[:, None], torch.arange(n_rows)
    n_frames, n_labels = n_frames[:, None, None], n_labels[:, None, None]
    own = (frame < n_frames) & (row <= n_labels)
    free_blank = (n_frames <= frame) & (frame < T) & (row == n_labels)
    free_label = (frame == T) & (n_labels <= row) & (row < n_rows - 1)
    blank = _log(free_blank).where(~own, blank)
    label = _log(free_label).where(~own | (row == n_labels), label)
    return own, blank, label


def _log(free: Tensor) -> Tensor:
    """Log 1 where an arc is free, else log 0."""
    return torch.where(free, 0.0, -torch.inf).double()


def _nodes(diagonals: Tensor, n_rows: int) -> Tensor:
    """(T + n_rows, batch, at least n_rows) -> (batch, T + 1, n_rows): a view of the nodes of
    diagonals."""
    n_diagonals, batch, _ = diagonals.shape
    diagonal, own, row = diagonals.stride()
    shape = batch, n_diagonals - n_rows + 1, n_rows
    return diagonals.as_strided(shape, (own, diagonal, diagonal + row))


def _sum(through: Tensor) -> Tensor:
    """Log-sums over all ways from the first node to each, diagonal by diagonal.

    Args:
        through: (2, diagonals, batch, rows), arcs that lead straight on, or to the next row, by
            where they lead; the sums before them are added.

    Returns:
        (diagonals, batch, rows)
    """
    _, n_diagonals, batch, n_rows = through.shape
    sums = through.new_full((n_diagonals, batch, n_rows + 1), -torch.inf)
    sums[0, :, 1] = 0
    rows, rows_below = (x.unbind() for x in (sums[..., 1:], sums[..., :-1]))
    blanks, labels = (x.unbind() for x in through)
    for d in range(1, n_diagonals):
        blanks[d].add_(rows[d - 1])
        labels[d].add_(rows_below[d - 1])
        torch.logaddexp(blanks[d], labels[d], out=rows[d])
    return sums[..., 1:]
