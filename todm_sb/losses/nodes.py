"""The joiner at lattice nodes, a few frames at a time, computed anew in the backward pass.

The logits of all nodes over the vocabulary never exist together: what the losses need of each
node is taken while its logits are at hand. All chunks share one set of buffers, for the C library's
allocator does not reuse what chunk after chunk gives back: the full lattice of 8 x 250 x 61 nodes
and 1,000 labels then peaks at 1 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.losses.pruning import Band
from todm_sb.nnet.joiner import Joiner

# Logits held at once. 4 MiB in float32 stay near a CPU core; an accelerator wants large kernels.
LOGITS_AT_ONCE = {"cpu": 1 << 20}
LOGITS_AT_ONCE_ELSEWHERE = 1 << 25


@dataclass(frozen=True)
class Nodes:
    """Which nodes are looked at, and what for; S is U + 1, or the width of the band.

    Args:
        following: (batch, U + 1), the label after each row, or blank where none follows.
        blank: id of blank.
        band: the nodes looked at; None for all.
        divergence: how distributions are compared with the teacher's, where there is one.
    """

    following: Tensor
    blank: int
    band: Band | None = None
    divergence: AlphaDivergence | None = None

    @property
    def width(self) -> int:
        """Number S of rows a frame."""
        return self.following.shape[1] if self.band is None else self.band.width

    def part(self, first: int, end: int) -> Nodes:
        """The same of the frames from ``first`` to before ``end``."""
        if self.band is None:
            return self
        band = Band(self.band.start[:, first:end], self.band.width)
        return Nodes(self.following, self.blank, band, self.divergence)

    def select(self, rows: Tensor) -> Tensor:
        """(batch, U + 1, d) -> (batch, T or 1, S, d): what belongs to each node's row."""
        return rows.unsqueeze(1) if self.band is None else self.band.select(rows)

    def gather_back(self, grad: Tensor, rows: Tensor) -> None:
        """Adds (batch, T, S, d), one frame's rows after the other's, up in (batch, U + 1, d)."""
        if self.band is None:
            rows += grad.sum(1)
        else:
            rows.flatten(0, 1).index_add_(
                0, self.band.flat_rows(rows.shape[1]).flatten(), grad.flatten(0, 2)
            )

    def labels(self, n_frames: int) -> Tensor:
        """(batch * n_frames * S,), the label after each node."""
        index = self.following.unsqueeze(1).expand(-1, n_frames, -1)
        return (index if self.band is None else self.band.take(index)).flatten()


def node_values(
    joiner: Joiner, encoder: Tensor, predictor: Tensor, nodes: Nodes, teacher: Tensor | None = None
) -> Tensor:
    """What the losses need of each node, with gradients to joiner, encoder and predictor.

    Args:
        joiner: from projected outputs to logits.
        encoder: (batch, T, d_joint), projected encoder output.
        predictor: (batch, U + 1, d_joint), projected predictor output.
        nodes: which nodes.
        teacher: (batch, T, d_joint), the teacher's projected encoder output, or None.

    Returns:
        (batch, T, S, 2 or 3), float32 or better: log p(blank), log p(next label) and, with a
        teacher, the divergence from it.
    """
    # Under autocast the matrix products take its precision, and logarithms keep float32.
    device = encoder.device.type
    weight, bias = joiner.output.weight, joiner.output.bias
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
    inputs = (x.to(dtype) for x in (encoder, predictor, weight, bias))
    with torch.autocast(device, enabled=False):
        return _NodeValues.apply(*inputs, None if teacher is None else teacher.to(dtype), nodes)


class _NodeValues(torch.autograd.Function):
    """The joiner's formula, ``log softmax(W tanh(e + p) + b)``, and its gradient by hand."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        encoder: Tensor,
        predictor: Tensor,
        weight: Tensor,
        bias: Tensor,
        teacher: Tensor | None,
        nodes: Nodes,
    ) -> Tensor:
        ctx.save_for_backward(encoder, predictor, weight, bias, teacher)
        ctx.nodes = nodes
        batch, T, _ = encoder.shape
        work = _Workspace(encoder, weight, bias, nodes, teacher is not None)
        n_values = 2 if teacher is None else 3
        values = work.log_probs.new_empty(batch, T, nodes.width, n_values)
        for first, end in work.chunks(T):
            part = nodes.part(first, end)
            rows = part.select(predictor)
            log_q = work.log_softmax(encoder[:, first:end], rows)
            labels = part.labels(end - first)
            found = [log_q[:, nodes.blank], log_q.gather(1, labels.unsqueeze(1)).squeeze(1)]
            if teacher is not None:
                log_p = work.log_softmax(teacher[:, first:end], rows, of_teacher=True)
                found.append(nodes.divergence.value(log_q, log_p, labels, nodes.blank))
            values[:, first:end] = torch.stack(found, -1).view_as(values[:, first:end])
        return values

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        encoder, predictor, weight, bias, teacher = ctx.saved_tensors
        nodes = ctx.nodes
        T, d_joint = encoder.shape[1:]
        work = _Workspace(encoder, weight, bias, nodes, teacher is not None)
        accurate = work.log_probs.dtype
        grad_encoder = torch.empty_like(encoder)
        grad_predictor = torch.zeros_like(predictor, dtype=accurate)
        grad_weight = torch.zeros_like(weight, dtype=accurate)
        grad_bias = torch.zeros_like(bias, dtype=accurate)
        for first, end in work.chunks(T):
            part = nodes.part(first, end)
            rows = part.select(predictor)
            labels = part.labels(end - first)
            log_p = None
            if teacher is not None:
                log_p = work.log_softmax(teacher[:, first:end], rows, of_teacher=True)
            log_q = work.log_softmax(encoder[:, first:end], rows)
            node_grad = grad[:, first:end].reshape(len(log_q), -1)
            grad_logits = work.grad_logits(log_q, log_p, node_grad, labels, nodes)
            grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(weight.dtype)
            grad_weight += grad_logits.T @ work.joint_of(len(log_q))
            grad_joint = work.grad_joint(grad_logits, weight)
            grad_nodes = grad_joint.view(len(encoder), end - first, nodes.width, d_joint)
            grad_encoder[:, first:end] = grad_nodes.sum(2)
            part.gather_back(grad_nodes.to(accurate), grad_predictor)
        return (
            grad_encoder,
            grad_predictor.to(predictor.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
            None,
            None,
        )


class _Workspace:
    """Buffers for one chunk, and the steps that fill them; V is the vocabulary's size.

    Args:
        encoder: (batch, T, d_joint).
        weight: (V, d_joint), of the output layer.
        bias: (V,).
        nodes: which nodes.
        with_teacher: whether log-probabilities of a teacher are wanted, too.
    """

    def __init__(
        self, encoder: Tensor, weight: Tensor, bias: Tensor, nodes: Nodes, with_teacher: bool
    ) -> None:
        self.weight, self.bias = weight, bias
        batch, T, d_joint = encoder.shape
        vocab_size = len(weight)
        at_once = LOGITS_AT_ONCE.get(encoder.device.type, LOGITS_AT_ONCE_ELSEWHERE)
        self.frames = min(T, max(1, at_once // (batch * nodes.width * vocab_size)))
        n = batch * self.frames * nodes.width
        dtype = torch.promote_types(encoder.dtype, torch.float32)
        self.joint = encoder.new_empty(n, d_joint)
        self.logits = encoder.new_empty(n, vocab_size)
        self.log_probs = encoder.new_empty(n, vocab_size, dtype=dtype)
        self.teacher_log_probs = torch.empty_like(self.log_probs) if with_teacher else None

    def chunks(self, n_frames: int) -> Iterator[tuple[int, int]]:
        """First frame and end of each chunk."""
        for first in range(0, n_frames, self.frames):
            yield first, min(first + self.frames, n_frames)

    def joint_of(self, n: int) -> Tensor:
        """(n, d_joint), ``tanh(e + p)`` of the last call of :meth:`log_softmax`."""
        return self.joint[:n]

    def log_softmax(self, encoder: Tensor, rows: Tensor, of_teacher: bool = False) -> Tensor:
        """(n, V), log-probabilities of the chunk's nodes.

        Args:
            encoder: (batch, frames, d_joint).
            rows: (batch, frames or 1, S, d_joint).
            of_teacher: into the buffer of the teacher's.
        """
        batch, frames, d_joint = encoder.shape
        n = batch * frames * rows.shape[2]
        joint = self.joint[:n].view(batch, frames, rows.shape[2], d_joint)
        torch.add(encoder.unsqueeze(2), rows, out=joint).tanh_()
        logits = torch.addmm(self.bias, self.joint[:n], self.weight.T, out=self.logits[:n])
        out = self.teacher_log_probs if of_teacher else self.log_probs
        return torch.log_softmax(logits, -1, dtype=out.dtype, out=out[:n])

    def grad_logits(
        self, log_q: Tensor, log_p: Tensor | None, grad: Tensor, labels: Tensor, nodes: Nodes
    ) -> Tensor:
        """(n, V), the gradient at the logits from that at the nodes' values.

        Args:
            log_q: (n, V); overwritten.
            log_p: (n, V), the teacher's, or None.
            grad: (n, 2 or 3).
            labels: (n,), the label after each node.
            nodes: what was looked at.
        """
        # Of log softmax: d_v - q_v sum(d), where d is the gradient at the log-probabilities.
        total = grad[:, :2].sum(1, keepdim=True)
        dense = None
        if log_p is not None:
            dense = nodes.divergence.gradient(log_q, log_p, labels, nodes.blank) * grad[:, 2:]
            total = total + dense.sum(1, keepdim=True)
        out = log_q.exp_().mul_(-total)
        out[:, nodes.blank] += grad[:, 0]
        out.scatter_add_(1, labels.unsqueeze(1), grad[:, 1:2])
        return out if dense is None else out.add_(dense)

    def grad_joint(self, grad_logits: Tensor, weight: Tensor) -> Tensor:
        """(n, d_joint), the gradient before the tanh; overwrites ``tanh(e + p)``."""
        slope = self.joint[: len(grad_logits)].square_().neg_().add_(1)
        return slope.mul_(grad_logits @ weight)
