"""Samples from frame to frame; devices without PyTorch ask, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def samples_of(milliseconds: float, sample_rate: int) -> int:
    """Samples of a window or hop, rounded as SpeechBrain rounds them; Kaldi rounds down."""
    return round(sample_rate / 1000 * milliseconds)


def hop_of(options: Mapping[str, Any]) -> int:
    """Samples from frame to frame.

    Args:
        options: of :func:`todm_sb.nnet.features.make_fbank`.
    """
    return samples_of(options["hop_length"], options["sample_rate"])
