"""Audio files of a manifest: what is wrong with them, and their samples."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

from todm_sb.utils.errors import DataError

# Seconds by which a manifest and an audio file may differ: the durations of some manifests are
# rounded to hundredths.
TOLERANCE = 0.02

SILENT = "silent audio"

# Samples decoded at a time.
BLOCK = 1 << 16


def flac_of(samples: np.ndarray, sample_rate: int) -> bytes:
    """The content of a FLAC file of 16 bits.

    Args:
        samples: ``[n]``, between -1 and 1.
        sample_rate: in Hz.
    """
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def read_samples(path: str, duration: float, sample_rate: int | None = None) -> np.ndarray:
    """Samples of an utterance, by the rules of :func:`audio_fault`.

    Raises:
        DataError: if it cannot be used (any more).
    """
    found, samples = None, np.empty(0, "float32")
    try:
        with soundfile.SoundFile(path) as file:
            found = _header_fault(file, path, duration, sample_rate)
            if found is None:
                expected = file.frames
                samples = file.read(dtype="float32")
                if len(samples) < expected:
                    found = "truncated audio", f"{path}: {len(samples)} of {expected} samples"
                elif not np.isfinite(samples).all():
                    found = "audio with samples that are not finite numbers", path
    except (OSError, soundfile.SoundFileError) as error:
        found = "unreadable audio", f"{path}: {error}"
    if found is not None:
        raise DataError(f"{found[0]} ({found[1]})")
    return samples


def audio_fault(
    path: str, duration: float, sample_rate: int | None = None, whole: bool = True
) -> tuple[str, str] | None:
    """Cause and detail of what is wrong with an audio file; None if nothing is.

    Args:
        path: the file.
        duration: seconds that the manifest gives it.
        sample_rate: that it must have, in Hz; None for any.
        whole: decode all of it, not only its end.
    """
    try:
        if not Path(path).exists():
            return "missing file", path
        with soundfile.SoundFile(path) as file:
            return _header_fault(file, path, duration, sample_rate) or (
                _samples_fault(file, path) if whole else _end_fault(file, path)
            )
    except (OSError, soundfile.SoundFileError) as error:
        return "unreadable audio", f"{path}: {error}"


def _header_fault(
    file: soundfile.SoundFile, path: str, duration: float, sample_rate: int | None
) -> tuple[str, str] | None:
    if sample_rate is not None and file.samplerate != sample_rate:
        return "wrong sample rate", f"{path}: {file.samplerate} Hz, not {sample_rate} Hz"
    if file.channels != 1:
        return "more than one channel", f"{path}: {file.channels} channels"
    if file.frames == 0:
        return "zero length", path
    actual = file.frames / file.samplerate
    if abs(actual - duration) > TOLERANCE:
        cause = "audio of another length than in the manifest (truncated, or changed since)"
        return cause, f"{path}: {actual:.2f} s, not {duration:.2f} s"
    return None


def _end_fault(file: soundfile.SoundFile, path: str) -> tuple[str, str] | None:
    file.seek(file.frames - 1)
    return None if len(file.read(1)) else ("truncated audio", path)


def _samples_fault(file: soundfile.SoundFile, path: str) -> tuple[str, str] | None:
    expected, read, peak = file.frames, 0, 0.0
    for block in file.blocks(BLOCK, dtype="float32"):
        read += len(block)
        peak = max(peak, float(np.abs(block).max()))
        if not np.isfinite(block).all():
            return "audio with samples that are not finite numbers", path
    if read < expected:
        return "truncated audio", f"{path}: {read} of {expected} samples"
    return None if peak > 0 else (SILENT, path)
