"""Audio files and batches from anywhere, checked before a network hears them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from todm_sb.errors import DataError

# Samples a channel read at once: many channels or a wrong length in a header cost no memory.
BLOCK = 1 << 18
# Full scale is 1. Far beyond it the energies leave float32.
LOUDEST = 1e6
# Slower than any speech; a file would grow by more than 4 when it is resampled to 16 kHz.
LOWEST_RATE = 4000
# Taps of a resampling filter grow with both rates, divided by what they share: 282,240 for 11.025
# to 16 kHz, but 177 million, and minutes, for 11.127 to 16 kHz.
MAX_RESAMPLING = 1_000_000


def check_audio(path: str | Path) -> int:
    """Makes sure that a file holds audio.

    Returns:
        Its sampling rate in Hz.

    Raises:
        DataError: if it is missing, is no audio, or holds no sample.
    """
    try:
        if not Path(path).is_file():
            raise DataError(f"audio file {path} does not exist")
        info = soundfile.info(os.fsencode(path))
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path} cannot be read as audio: {error}") from None
    if info.frames == 0:
        raise DataError(f"{path} holds no audio")
    return info.samplerate


def audio_blocks(path: str | Path, size: int) -> Iterator[Tensor]:
    """Reads a file block by block.

    Args:
        path: of the file.
        size: samples of each block but the last.

    Yields:
        (samples,), the mean of the channels.

    Raises:
        DataError: if it breaks off, or holds a sample that no microphone gives.
    """
    try:
        for block in soundfile.blocks(os.fsencode(path), size, dtype="float32", always_2d=True):
            samples = torch.from_numpy(block).mean(1)
            check_samples(samples, str(path))
            yield samples
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} cannot be read as audio: {error}") from None


def read_audio(path: str | Path) -> tuple[Tensor, int]:
    """Reads a file as one channel.

    Returns:
        (samples,), and the sampling rate in Hz.

    Raises:
        DataError: as of :func:`check_audio` and :func:`audio_blocks`.
    """
    sample_rate = check_audio(path)
    return torch.cat(list(audio_blocks(path, BLOCK))), sample_rate


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
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"{name} holds samples that are not finite numbers")
    if max(-low, high) > LOUDEST:
        raise DataError(f"{name} holds samples up to {max(-low, high):.3g}, where full scale is 1")


def check_resampling(sample_rate: int, target: int, name: str) -> None:
    """Checks that a sampling rate can be converted at a reasonable price.

    Raises:
        DataError: if it cannot, naming the audio.
    """
    shared = math.gcd(sample_rate, target)
    taps = (sample_rate // shared) * (target // shared)
    if sample_rate != target and (sample_rate < LOWEST_RATE or taps > MAX_RESAMPLING):
        raise DataError(
            f"{name} has an unusual sampling rate of {sample_rate} Hz: convert it to {target} Hz"
        )


def check_batch(wavs: Tensor, wav_lens: Tensor) -> None:
    """Checks a batch of padded waveforms and their lengths as fractions of the longest.

    Raises:
        DataError: if shapes, samples or lengths make no sense.
    """
    if wavs.ndim != 2 or wav_lens.shape != wavs.shape[:1]:
        raise DataError(
            "audio must be (batch, samples) and lengths (batch,), "
            f"not {tuple(wavs.shape)} and {tuple(wav_lens.shape)}"
        )
    if not bool(((wav_lens >= 0) & (wav_lens <= 1)).all()):
        raise DataError("lengths of audio must be fractions in 0..1")
    check_samples(wavs)
