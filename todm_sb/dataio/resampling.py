"""Sampling rates: which can be converted, and the converters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

# Slower than any speech; a file would grow by more than 4 when it is resampled to 16 kHz.
LOWEST_RATE = 4000
# Taps of a resampling filter grow with both rates, divided by what they share: 282,240 for 11.025
# to 16 kHz, but 177 million, and minutes, for 11.127 to 16 kHz.
MAX_TAPS = 1_000_000


def convertible(rate: int, target: int) -> bool:
    """Whether a sampling rate can be converted at a reasonable price.

    Args:
        rate: in Hz, as `target`.
    """
    shared = math.gcd(rate, target)
    taps = (rate // shared) * (target // shared)
    return rate == target or (rate >= LOWEST_RATE and taps <= MAX_TAPS)


def resampled(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Samples at another rate, through the filter that recognisers have.

    Args:
        samples: ``[..., n]``, float32.
        rate: theirs, in Hz; see :func:`convertible`.
        target: wanted, in Hz.

    Returns:
        ``[..., ceil(n * target / rate)]``.
    """
    if rate == target:
        return samples
    import torch

    return _converter(rate, target)(torch.from_numpy(samples)).numpy()


@lru_cache(maxsize=16)
def _converter(rate: int, target: int) -> Any:
    """Its filter is made once a process."""
    from torchaudio.transforms import Resample

    return Resample(rate, target)
