"""Audio files from anywhere as numbers, without PyTorch; checked before a network hears them."""

from __future__ import annotations

import io
import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from todm_sb.dataio.audio import TOLERANCE, TOLERANCES, SampleReader, sound_file
from todm_sb.dataio.mp3 import tells_length
from todm_sb.dataio.resampling import convertible
from todm_sb.inference.sources import STDIN
from todm_sb.utils.errors import DataError

# Samples a channel read at once: many channels or a wrong length in a header cost no memory.
BLOCK = 1 << 18
# Of a pipe, which is held in memory: 9 hours of 16 bits at 16 kHz. Some, as /dev/zero, have no end.
MOST_BYTES = 1 << 30
# Full scale is 1. Far beyond it the energies leave float32.
LOUDEST = 1e6


def check_audio(path: str | Path) -> None:
    """Refuses at once a file that :func:`open_audio` will refuse; what cannot be wound back is left
    for then.

    Args:
        path: where it is, or ``-``.

    Raises:
        DataError: see :func:`open_audio`.
    """
    if str(path) != STDIN and (os.path.isfile(path) or not os.path.exists(path)):
        open_audio(path).close()


def open_audio(path: str | Path) -> soundfile.SoundFile:
    """Opens audio for reading, be it a file or what cannot be wound back, such as a pipe or
    ``/dev/stdin``, which is read whole.

    Args:
        path: where it is, or ``-`` for standard input; any format that libsndfile reads.

    Raises:
        DataError: if it is missing, closed or a folder, may not be read, is no audio, tells no
            rate or no length, or holds no sample.
    """
    try:
        with _opened(path) as file:
            is_file = str(path) != STDIN and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            source = os.fsencode(path) if is_file else io.BytesIO(_content(file, path))
        audio = sound_file(source)
    except DataError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of impossible names
        raise DataError(f"audio file {path} does not exist") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder: name the audio files in it") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except soundfile.SoundFileError as error:
        raise _no_audio(path, error) from None
    if audio.frames == 0:
        audio.close()
        raise DataError(f"{path} holds no audio")
    return audio


def _opened(path: str | Path) -> AbstractContextManager[BinaryIO]:
    if str(path) == STDIN:
        if sys.stdin is None:
            raise DataError("standard input is closed: send audio in, as with < file")
        return nullcontext(sys.stdin.buffer)
    return open(path, "rb")


def _content(file: BinaryIO, path: str | Path) -> bytes:
    """Of a pipe, all that comes."""
    content = file.read(MOST_BYTES + 1)
    if not content:
        raise DataError(f"{path} holds no audio")
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} gives more than {MOST_BYTES:,} bytes: save them as a file first")
    return content


def _no_audio(path: str | Path, error: soundfile.SoundFileError) -> DataError:
    reason = getattr(error, "error_string", error)  # libsndfile's own, without the path
    return DataError(f"{path} cannot be read as audio: {reason}")


def sample_blocks(audio: soundfile.SoundFile, size: int, path: str | Path) -> Iterator[np.ndarray]:
    """Reads audio block by block, and closes it.

    Args:
        audio: from :func:`open_audio`.
        size: samples of each block but the last.
        path: what errors call it.

    Yields:
        (samples,), float32, the mean of the channels.

    Raises:
        DataError: if it breaks off, or holds a sample that no microphone gives.
    """
    try:
        with audio:
            reader, first = SampleReader(audio), 0
            while len(block := reader.read(first, size)):
                check_samples(block, str(path))
                yield block if block.ndim == 1 else block.mean(1)
                first += len(block)
            if _breaks_off(audio, first):
                raise DataError(
                    f"{path} breaks off: {first:,} of {audio.frames:,} samples are there"
                )
    except soundfile.LibsndfileError as error:
        raise _no_audio(path, error) from None


def _breaks_off(audio: soundfile.SoundFile, n_samples: int) -> bool:
    """Whether there were fewer samples than the header tells."""
    missing = (audio.frames - n_samples) / audio.samplerate
    if missing <= TOLERANCES.get(audio.format, TOLERANCE):
        return False
    if audio.format != "MP3":
        return True
    source = audio.name  # as it was given to be opened
    with nullcontext(source) if isinstance(source, io.BytesIO) else open(source, "rb") as file:
        return tells_length(file)


def read_audio(audio: soundfile.SoundFile, target: int, path: str | Path) -> tuple[np.ndarray, int]:
    """All samples of what is open, and closes it.

    Args:
        audio: from :func:`open_audio`.
        target: sampling rate in Hz that they will be converted to.
        path: what errors call it.

    Returns:
        (samples,), float32, the mean of the channels, and their own rate in Hz.

    Raises:
        DataError: see :func:`sample_blocks` and :func:`check_resampling`.
    """
    rate = audio.samplerate
    check_resampling(rate, target, str(path))
    return np.concatenate(list(sample_blocks(audio, BLOCK, path))), rate


def check_batch(wavs: Any, wav_lens: Any) -> None:
    """Checks padded waveforms and their lengths as fractions of the longest.

    Args:
        wavs: (batch, samples), array or tensor.
        wav_lens: (batch,), of the same kind.

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


def check_samples(wavs: Any, name: str = "the audio") -> None:
    """Checks that samples, array or tensor, are floating-point numbers that energies can be
    computed of.

    Raises:
        DataError: if they are not, naming the audio.
    """
    dtype = wavs.dtype
    if not (dtype.kind == "f" if isinstance(dtype, np.dtype) else dtype.is_floating_point):
        raise DataError(f"{name} holds {dtype}: give floating-point samples of full scale 1")
    if 0 in wavs.shape:
        return
    low, high = float(wavs.min()), float(wavs.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(f"{name} holds samples that are not finite numbers")
    if max(-low, high) > LOUDEST:
        raise DataError(f"{name} holds samples up to {max(-low, high):.3g}, where full scale is 1")


def check_wave(wave: np.ndarray, name: str = "the audio") -> np.ndarray:
    """Checks the samples of one channel.

    Returns:
        (samples,), float32.

    Raises:
        DataError: if they are of another shape, or see :func:`check_samples`.
    """
    if wave.ndim != 1:
        raise DataError(f"{name} is of shape {wave.shape}: give one channel, (samples,)")
    check_samples(wave, name)
    return wave.astype(np.float32, copy=False)


def check_resampling(sample_rate: int, target: int, name: str) -> None:
    """Checks that a sampling rate can be converted at a reasonable price.

    Raises:
        DataError: if it cannot, naming the audio.
    """
    if not convertible(sample_rate, target):
        raise DataError(
            f"{name} has an unusual sampling rate of {sample_rate} Hz: convert it to {target} Hz"
        )
