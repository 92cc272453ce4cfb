"""Matrix products whose precision matters more than their time.

Importing SpeechBrain switches TF32 on, in which float32 products keep 10 bits of their factors on
recent GPUs. It serves the layers, whose inputs are noisy. What is summed over a lattice, a long
filter, or a difference of logarithms is exempt from it: the error would grow from 2e-6 to 4e-4.
So it is from autocast, whose products are coarser still.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products keep their precision in here, also as a decorator."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = before


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
