"""Matrix products whose precision matters more than their time.

Importing SpeechBrain switches TF32 on, in which float32 products keep 10 bits of their factors on
recent GPUs. It serves the layers, whose inputs are noisy. What is summed over a lattice, a long
filter, or a difference of logarithms is exempt from it: the error would grow from 2e-6 to 4e-4.
So it is from autocast, whose products are coarser still.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Exact:
    """Keeps TF32 off while anyone needs it so. PyTorch's switch is the process's: the first to come
    switches it off, and the last to go leaves it as it was."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.before = False

    def enter(self) -> None:
        """One more needs exact products."""
        matmul = torch.backends.cuda.matmul
        with self.lock:
            if not self.inside:
                self.before, matmul.allow_tf32 = matmul.allow_tf32, False
            self.inside += 1

    def leave(self) -> None:
        """One fewer does."""
        with self.lock:
            self.inside -= 1
            if not self.inside:
                torch.backends.cuda.matmul.allow_tf32 = self.before


_EXACT = _Exact()


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products keep their precision in here, in all threads; also as a decorator."""
    _EXACT.enter()
    try:
        yield
    finally:
        _EXACT.leave()


def exact_bmm(a: Tensor, b: Tensor) -> Tensor:
    """``torch.bmm`` of (n, i, j) and (n, j, k), and its gradient, without TF32 and autocast."""
    return _ExactBmm.apply(a, b)


class _ExactBmm(torch.autograd.Function):
    @staticmethod
    @exact_products()
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        with torch.autocast(a.device.type, enabled=False):
            return torch.bmm(a, b)

    @staticmethod
    @once_differentiable
    @exact_products()
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            return torch.bmm(grad, b.transpose(1, 2)), torch.bmm(a.transpose(1, 2), grad)
