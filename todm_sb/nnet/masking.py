"""Masks of padded frames."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

# Of one utterance, or of each of a batch.
Count = TypeVar("Count", int, Tensor)


def frame_mask(lengths: Tensor, n_frames: int, dtype: torch.dtype = torch.bool) -> Tensor:
    """1 on each utterance's frames, 0 on its padding.

    Args:
        lengths: (batch,), integer frames.
        n_frames: frames T of the padded batch.
        dtype: of the mask.

    Returns:
        (batch, T, 1)
    """
    frames = torch.arange(n_frames, device=lengths.device)
    return (frames < lengths.unsqueeze(1)).unsqueeze(-1).to(dtype)
