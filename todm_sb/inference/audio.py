"""Audio and batches from anywhere as tensors, checked before a network hears them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from todm_sb.inference.audio_file import (
    check_batch_shape,
    check_extremes,
    open_audio,
    sample_blocks,
)
from todm_sb.utils.errors import DataError

__all__ = ["audio_blocks", "check_batch", "check_samples", "open_audio"]


def audio_blocks(audio: soundfile.SoundFile, size: int, path: str | Path) -> Iterator[Tensor]:
    """As :func:`todm_sb.inference.audio_file.sample_blocks`, as tensors."""
    return map(torch.from_numpy, sample_blocks(audio, size, path))


def check_samples(samples: Tensor, name: str = "the audio") -> None:
    """Checks that samples are floating-point numbers that energies can be computed of.

    Raises:
        DataError: if they are not, naming the audio.
    """
    if not samples.is_floating_point():
        raise DataError(
            f"{name} holds {samples.dtype}: give floating-point samples of full scale 1"
        )
    if samples.numel() == 0:
        return
    low, high = (x.item() for x in samples.aminmax())
    check_extremes(low, high, name)


def check_batch(wavs: Tensor, wav_lens: Tensor) -> None:
    """Checks a batch of padded waveforms and their lengths as fractions of the longest.

    Raises:
        DataError: if shapes, samples or lengths make no sense.
    """
    check_batch_shape(wavs, wav_lens)
    check_samples(wavs)
