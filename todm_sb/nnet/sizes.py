"""How large a module is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

FLOAT32_BYTES = 4
DTYPES = ("float32", "int8")

# Tensors of fewer numbers than this keep their precision in a network in 8 bits, as do columns: one
# number a channel, such as the time steps of an SSM, which span decades.
SMALL = 256
# Rows of at least this length have a scale each.
LONG_ROW = 32


def n_parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def n_bytes(module: nn.Module, dtype: str = "float32") -> int:
    """Size of a module's weights, parameters and buffers.

    Args:
        module: its shapes are all that is looked at.
        dtype: ``float32``, or ``int8``: parameters are stored as :func:`in_8_bits` and
            :func:`axes_of_a_scale` tell, a byte a number and a float32 a scale; buffers stay
            float32.

    Raises:
        ValueError: on another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, not {dtype!r}")
    size = FLOAT32_BYTES * sum(b.numel() for b in module.buffers())
    return size + sum(_n_bytes(p, dtype == "int8") for p in module.parameters())


def _n_bytes(tensor: Tensor, int8: bool) -> int:
    if not (int8 and in_8_bits(tensor.shape)):
        return FLOAT32_BYTES * tensor.numel()
    of_a_scale = math.prod(tensor.shape[axis] for axis in axes_of_a_scale(tensor.shape))
    return tensor.numel() + FLOAT32_BYTES * (tensor.numel() // of_a_scale)


def in_8_bits(shape: Sequence[int]) -> bool:
    """Whether a network in 8 bits has a tensor of this shape in 8 bits."""
    return math.prod(shape) >= SMALL and shape[-1] != 1


def axes_of_a_scale(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes along which such a tensor's numbers share a scale: those of a long row, of
    convolutions all but the first, else all."""
    if len(shape) == 4:
        return 1, 2, 3
    return (-1,) if shape[-1] >= LONG_ROW else tuple(range(len(shape)))
