"""The joiner at lattice nodes, a few frames at a time.

What the losses need of each node is taken while its logits are at hand. Where the logits of all
nodes are few, as in a band, they are held for the backward pass and for students to learn from;
else they never exist together and are computed anew. All chunks share one set of buffers, for the C
library's allocator does not reuse what chunk after chunk gives back: the full lattice of
8 x 250 x 61 nodes and 1,000 labels would then peak at 1 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from todm_sb.losses.divergence import Divergence
from todm_sb.losses.pruning import Band
from todm_sb.nnet.joiner import Joiner
from todm_sb.utils.device_kind import kind_of
from todm_sb.utils.products import exact_products

# Logits held at once. 4 MiB in float32 stay near a CPU core; an accelerator wants large kernels.
LOGITS_AT_ONCE = {"cpu": 1 << 20}
LOGITS_AT_ONCE_ELSEWHERE = 1 << 25

# Numbers held for the backward pass in place of computing them anew: logits, or elements of the
# joint space if there are more.
HELD = {"cpu": 1 << 24}
HELD_ELSEWHERE = 1 << 28
# With more labels, a tanh costs little beside the products with them: the joint is not held.
JOINT_HELD_UP_TO = 256


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
    divergence: Divergence | None = None

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

    def select(self, predictor: Tensor) -> Tensor:
        """(batch, U + 1, d) -> (batch, T or 1, S, d): what belongs to each node's row."""
        return predictor.unsqueeze(1) if self.band is None else self.band.select(predictor)

    def gather_back(self, grad: Tensor, total: Tensor) -> None:
        """Adds (batch, T, S, d), one frame's rows after the other's, to (batch, U + 1, d)."""
        if self.band is None:
            total += grad.sum(1)
        else:
            at = self.band.flat_rows(total.shape[1]).flatten()
            total.flatten(0, 1).index_add_(0, at, grad.flatten(0, 2))

    def labels(self, n_frames: int) -> Tensor:
        """(batch * n_frames * S,), the label after each node."""
        index = self.following.unsqueeze(1).expand(-1, n_frames, -1)
        return (index if self.band is None else self.band.take(index)).flatten()


@dataclass(frozen=True)
class TeacherNodes:
    """What a teacher says at the nodes.

    Args:
        encoder: (batch, T, d_joint), its projected encoder output.
        log_probs: what :func:`node_values` returned for it, or None to compute it anew.
    """

    encoder: Tensor
    log_probs: Tensor | None


def node_values(
    joiner: Joiner,
    encoder: Tensor,
    predictor: Tensor,
    nodes: Nodes,
    teacher: TeacherNodes | None = None,
) -> tuple[Tensor, Tensor | None]:
    """What the losses need of each node, with gradients to joiner, encoder and predictor.

    Args:
        joiner: from projected outputs to logits.
        encoder: (batch, T, d_joint), projected encoder output.
        predictor: (batch, U + 1, d_joint), projected predictor output.
        nodes: which nodes.
        teacher: None for no distillation.

    Returns:
        (batch, T, S, channels), float32 or better: log p(blank), log p(next label) and, with a
        teacher, the divergence from it and, without gradient, its notes. Then all
        log-probabilities, without gradient and in an order of their own, for
        :class:`TeacherNodes`; None where they are too many to hold.
    """
    # Under autocast the matrix products take its precision, and logarithms keep float32.
    device = encoder.device.type
    weight, bias = joiner.output.weight, joiner.output.bias
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
    inputs = (x.to(dtype) for x in (encoder, predictor, weight, bias))
    if teacher is not None:
        teacher = TeacherNodes(teacher.encoder.to(dtype), teacher.log_probs)
    with torch.autocast(device, enabled=False):
        values, log_probs = _NodeValues.apply(*inputs, teacher, nodes)
    return values, log_probs if len(log_probs) else None


class _NodeValues(torch.autograd.Function):
    """The joiner's formula, ``log softmax(W tanh(e + p) + b)``, and its gradient by hand."""

    @staticmethod
    @exact_products()
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        encoder: Tensor,
        predictor: Tensor,
        weight: Tensor,
        bias: Tensor,
        teacher: TeacherNodes | None,
        nodes: Nodes,
    ) -> tuple[Tensor, Tensor]:
        work = _Workspace(encoder, weight, bias, nodes)
        n_channels = 2 if teacher is None else 3 + nodes.divergence.n_notes
        values = work.log_probs.new_empty(*encoder.shape[:2], nodes.width, n_channels)
        for chunk in work.chunks():
            predicted = chunk.nodes.select(predictor)
            log_q = work.log_softmax(chunk, chunk.of(encoder), predicted)
            labels = chunk.labels
            found = [log_q[:, nodes.blank], log_q.gather(1, labels.unsqueeze(1)).squeeze(1)]
            if teacher is not None:
                log_p = work.teacher_log_probs(chunk, teacher, predicted)
                found += nodes.divergence.at_nodes(log_q, log_p, labels, nodes.blank)
            here = chunk.of(values)
            here.copy_(torch.stack(found, -1).view_as(here))
        ctx.save_for_backward(
            encoder,
            predictor,
            weight,
            bias,
            work.joint if work.holds_joint else None,
            work.log_probs if work.holds else None,
        )
        ctx.nodes, ctx.teacher = nodes, teacher
        log_probs = work.log_probs if work.holds else work.log_probs[:0]
        ctx.mark_non_differentiable(log_probs)
        ctx.set_materialize_grads(False)  # else backward is handed zeros of log_probs' size
        return values, log_probs

    @staticmethod
    @once_differentiable
    @exact_products()
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor, _: None
    ) -> tuple[Tensor | None, ...]:
        encoder, predictor, weight, bias, *held = ctx.saved_tensors
        nodes, teacher = ctx.nodes, ctx.teacher
        work = _Workspace(encoder, weight, bias, nodes, *held)
        accurate = work.log_probs.dtype
        grad_encoder = torch.empty_like(encoder)
        grad_predictor = torch.zeros_like(predictor, dtype=accurate)
        grad_weight = torch.zeros_like(weight, dtype=accurate)
        grad_bias = torch.zeros_like(bias, dtype=accurate)
        for chunk in work.chunks():
            predicted = chunk.nodes.select(predictor)
            log_p = None if teacher is None else work.teacher_log_probs(chunk, teacher, predicted)
            if not work.holds:
                work.log_softmax(chunk, chunk.of(encoder), predicted)
            elif not work.holds_joint:
                work.join(chunk, chunk.of(encoder), predicted)
            node_grad = chunk.of(grad).reshape(chunk.size, -1)
            grad_logits = work.grad_logits(chunk, log_p, node_grad)
            grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(weight.dtype)
            grad_weight += grad_logits.T @ work.joint_of(chunk)
            grad_joint = work.grad_joint(chunk, grad_logits)
            grad_joint = grad_joint.view(len(encoder), -1, nodes.width, encoder.shape[2])
            chunk.of(grad_encoder).copy_(grad_joint.sum(2))
            chunk.nodes.gather_back(grad_joint.to(accurate), grad_predictor)
        return (
            grad_encoder,
            grad_predictor.to(predictor.dtype),
            grad_weight.to(weight.dtype),
            grad_bias.to(bias.dtype),
            None,
            None,
        )


@dataclass(frozen=True)
class _Chunk:
    """Some frames of all utterances, and where their nodes are among all.

    Args:
        frames: first frame and end.
        place: first of its nodes and end, in an order of chunks.
        nodes: what is looked at in them.
    """

    frames: slice
    place: slice
    nodes: Nodes

    @property
    def size(self) -> int:
        """Number n of nodes."""
        return self.place.stop - self.place.start

    @property
    def labels(self) -> Tensor:
        """(n,), the label after each node."""
        return self.nodes.labels(self.frames.stop - self.frames.start)

    def of(self, x: Tensor) -> Tensor:
        """(batch, T, ...) -> (batch, frames, ...)."""
        return x[:, self.frames]


class _Workspace:
    """Buffers, and the steps that fill them; V is the vocabulary's size.

    Args:
        encoder: (batch, T, d_joint).
        weight: (V, d_joint), of the output layer.
        bias: (V,).
        nodes: which nodes.
        joint, log_probs: of all nodes, from the forward pass, where they were held.
    """

    def __init__(
        self,
        encoder: Tensor,
        weight: Tensor,
        bias: Tensor,
        nodes: Nodes,
        joint: Tensor | None = None,
        log_probs: Tensor | None = None,
    ) -> None:
        self.weight, self.bias, self.nodes = weight, bias, nodes
        batch, self.n_frames, d_joint = encoder.shape
        device = kind_of(encoder.device)
        self.nodes_a_frame = batch * nodes.width
        at_once = LOGITS_AT_ONCE.get(device, LOGITS_AT_ONCE_ELSEWHERE)
        fitting = at_once // max(1, self.nodes_a_frame * len(weight))
        self.frames = max(1, min(self.n_frames, fitting))
        n_of_chunk, n = (self.nodes_a_frame * frames for frames in (self.frames, self.n_frames))
        self.holds = n * max(weight.shape) <= HELD.get(device, HELD_ELSEWHERE)
        self.holds_joint = self.holds and len(weight) <= JOINT_HELD_UP_TO
        accurate = torch.promote_types(encoder.dtype, torch.float32)
        self.scratch = weight.new_empty(n_of_chunk, len(weight), dtype=accurate)
        self.logits = weight.new_empty(n_of_chunk, len(weight))
        if joint is None:
            joint = weight.new_empty(n if self.holds_joint else n_of_chunk, d_joint)
        if log_probs is None:
            n_kept = n if self.holds else n_of_chunk
            log_probs = weight.new_empty(n_kept, len(weight), dtype=accurate)
        self.joint, self.log_probs = joint, log_probs

    def chunks(self) -> Iterator[_Chunk]:
        """The chunks, first frames first."""
        for first in range(0, self.n_frames, self.frames):
            end = min(first + self.frames, self.n_frames)
            place = slice(first * self.nodes_a_frame, end * self.nodes_a_frame)
            yield _Chunk(slice(first, end), place, self.nodes.part(first, end))

    def joint_of(self, chunk: _Chunk) -> Tensor:
        """(n, d_joint), ``tanh(e + p)``."""
        return self.joint[chunk.place if self.holds_joint else slice(chunk.size)]

    def log_probs_of(self, chunk: _Chunk) -> Tensor:
        """(n, V)."""
        return self.log_probs[chunk.place if self.holds else slice(chunk.size)]

    def join(self, chunk: _Chunk, encoder: Tensor, predicted: Tensor) -> None:
        """Fills :meth:`joint_of`; arguments as of :meth:`log_softmax`."""
        _join(encoder, predicted, self.joint_of(chunk))

    def log_softmax(self, chunk: _Chunk, encoder: Tensor, predicted: Tensor) -> Tensor:
        """(n, V), log-probabilities of the chunk's nodes; they and the joint are kept.

        Args:
            chunk: where they go.
            encoder: (batch, frames, d_joint).
            predicted: (batch, frames or 1, S, d_joint), the predictor's for each node.
        """
        return self._log_softmax(encoder, predicted, self.joint_of(chunk), self.log_probs_of(chunk))

    def teacher_log_probs(self, chunk: _Chunk, teacher: TeacherNodes, predicted: Tensor) -> Tensor:
        """(n, V), the teacher's; ``predicted`` as of :meth:`log_softmax`."""
        if teacher.log_probs is not None:
            return teacher.log_probs[chunk.place]
        joint, out = torch.empty_like(self.joint_of(chunk)), self.scratch[: chunk.size]
        return self._log_softmax(chunk.of(teacher.encoder), predicted, joint, out)

    def _log_softmax(
        self, encoder: Tensor, predicted: Tensor, joint: Tensor, out: Tensor
    ) -> Tensor:
        _join(encoder, predicted, joint)
        logits = torch.addmm(self.bias, joint, self.weight.T, out=self.logits[: len(joint)])
        return torch.log_softmax(logits, -1, dtype=out.dtype, out=out)

    def grad_logits(self, chunk: _Chunk, log_p: Tensor | None, grad: Tensor) -> Tensor:
        """(n, V), the gradient at the logits from that at the nodes' values, (n, channels).

        ``log_p`` is (n, V), the teacher's, or None.
        """
        # Of log softmax: d_v - q_v sum(d), where d is the gradient at the log-probabilities.
        log_q = self.log_probs_of(chunk)
        labels, blank = chunk.labels, self.nodes.blank
        total = grad[:, :2].sum(1, keepdim=True)
        dense = None
        if log_p is not None:
            dense = self.nodes.divergence.gradient(log_q, log_p, labels, blank).mul_(grad[:, 2:3])
            total = total + dense.sum(1, keepdim=True)
        out = torch.exp(log_q, out=self.scratch[: chunk.size]).mul_(-total)
        out[:, blank] += grad[:, 0]
        out.scatter_add_(1, labels.unsqueeze(1), grad[:, 1:2])
        return out if dense is None else out.add_(dense)

    def grad_joint(self, chunk: _Chunk, grad_logits: Tensor) -> Tensor:
        """(n, d_joint), the gradient before the tanh."""
        joint = self.joint_of(chunk)
        grad = grad_logits @ self.weight
        return grad.sub_((grad * joint).mul_(joint))


def _join(encoder: Tensor, predicted: Tensor, out: Tensor) -> None:
    """``tanh(e + p)`` of (batch, frames, d) and (batch, frames or 1, S, d) into (n, d)."""
    shape = (*encoder.shape[:2], predicted.shape[2], encoder.shape[2])
    torch.add(encoder.unsqueeze(2), predicted, out=out.view(shape)).tanh_()
