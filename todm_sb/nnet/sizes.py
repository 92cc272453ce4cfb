"""How large a module is."""

from __future__ import annotations

from torch import Tensor, nn

FLOAT32_BYTES = 4
DTYPES = ("float32", "int8")

# Layers whose matrices an int8 network holds as bytes.
QUANTISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.Embedding)


def n_parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def n_bytes(module: nn.Module, dtype: str = "float32") -> int:
    """Size of a module's weights, parameters and buffers.

    Args:
        module: its shapes are all that is looked at.
        dtype: ``float32``, or ``int8``: the matrices of linear, convolution, LSTM and embedding
            layers take a byte an element and a float32 scale an output row; biases, norms and
            whatever else a module holds itself, which is small and delicate, stay float32.

    Raises:
        ValueError: on another dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, not {dtype!r}")
    size = FLOAT32_BYTES * sum(b.numel() for b in module.buffers())
    for part in module.modules():
        quantised = dtype == "int8" and isinstance(part, QUANTISED)
        for parameter in part.parameters(recurse=False):
            size += _n_bytes(parameter, quantised and parameter.dim() > 1)
    return size


def _n_bytes(tensor: Tensor, int8: bool) -> int:
    if int8:
        return tensor.numel() + FLOAT32_BYTES * len(tensor)
    return FLOAT32_BYTES * tensor.numel()
