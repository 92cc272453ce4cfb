"""Which rows of a batch a search goes on with, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def first_places(mask: Tensor, count: int) -> Tensor:
    """Where a mask is true, as ``nonzero`` says.

    Of a tensor on an accelerator the host has to wait for the number of places that ``nonzero``
    finds; here it knows it.

    Args:
        mask: booleans of any shape, which counts as flattened.
        count: places wanted: if more than are true, others follow.

    Returns:
        (count,), the true ones first; those, and all where all are wanted, in rising order.
    """
    if count == mask.numel():
        return torch.arange(count, device=mask.device)
    return mask.flatten().byte().argsort(descending=True, stable=True)[:count]
