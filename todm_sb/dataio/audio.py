"""Audio of a manifest's utterances: what is wrong with it, and its samples."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from todm_sb.dataio.mp3 import is_longer
from todm_sb.dataio.resampling import convertible, resampled
from todm_sb.utils.errors import DataError

# Seconds by which a manifest and an audio file may differ: the durations of some manifests are
# rounded to hundredths.
TOLERANCE = 0.02
# Coders that work in blocks: decoders differ by what they leave out at the ends.
TOLERANCES = {"MP3": 0.1}
# Samples to decode before the first that counts. A frame of MP3 borrows bits from some of those
# before it: where decoding begins in the middle of a file, 0.1 s and more are silent or wrong.
RUN_UP = {"MP3": 32 * 1152}

SILENT = "silent audio"

# Suffixes of what libsndfile reads: what is taken for audio in a folder. A file that is named may
# have any other.
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        *("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "aiffc"),
        *("au", "snd", "caf", "w64", "rf64", "sph", "nist", "voc"),
    )
)

# Samples decoded at a time.
BLOCK = 1 << 16
# Of audio whose header tells no length, as FLAC that was encoded into a pipe.
UNKNOWN_LENGTH = (1 << 63) - 1


def flac_of(samples: np.ndarray, sample_rate: int) -> bytes:
    """The content of a FLAC file of 16 bits.

    Args:
        samples: ``[n]``, between -1 and 1.
        sample_rate: in Hz.
    """
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


@dataclass(frozen=True)
class Conversion:
    """What is made of audio that is not as the network takes it; without it, that is a fault.

    Args:
        resample: to the wanted rate from any other.
        mixdown: the mean of the channels, however many.
    """

    resample: bool = False
    mixdown: bool = False


AS_RECORDED = Conversion()
# Where an utterance begins and ends in its file; None for all of it.
Part = tuple[float, float] | None


class _FaultError(Exception):
    """Cause and detail of what is wrong with an audio file."""


def sound_file(source: str | bytes | Path | io.BytesIO) -> soundfile.SoundFile:
    """Opens audio for reading.

    Args:
        source: a path, or the content of a file.

    Raises:
        OSError, soundfile.SoundFileError: if it is none, or does not tell its rate or its length.
    """
    try:
        file = soundfile.SoundFile(source)
    except TypeError:  # a name in .raw, for which soundfile wants to be told the rate
        raise soundfile.SoundFileError("it has no header: convert it to WAV") from None
    longer = file.subtype == "MPEG_LAYER_III" and is_longer(source, file.frames)
    if file.frames == UNKNOWN_LENGTH or longer:
        file.close()
        raise soundfile.SoundFileError("it does not tell its length: convert it to WAV or FLAC")
    return file


def read_samples(
    path: str,
    duration: float,
    sample_rate: int | None = None,
    conversion: Conversion = AS_RECORDED,
    part: Part = None,
) -> np.ndarray:
    """Samples of an utterance, by the rules of :func:`audio_fault`.

    Returns:
        ``[n]``, float32, at the sample rate.

    Raises:
        DataError: if it cannot be used (any more).
    """
    try:
        with sound_file(path) as file:
            first, expected = _place(file, path, duration, sample_rate, conversion, part)
            samples = SampleReader(file).read(first, expected)
            rate = file.samplerate
        if len(samples) < expected:
            raise _FaultError("truncated audio", f"{path}: {len(samples)} of {expected} samples")
        if not np.isfinite(samples).all():
            raise _FaultError("audio with samples that are not finite numbers", path)
    except _FaultError as fault:
        raise DataError("{} ({})".format(*fault.args)) from None
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"unreadable audio ({path}: {error})") from None
    if samples.ndim > 1:
        samples = samples.mean(1)
    return resampled(samples, rate, sample_rate or rate)


def audio_fault(
    path: str,
    duration: float,
    sample_rate: int | None = None,
    whole: bool = True,
    conversion: Conversion = AS_RECORDED,
    part: Part = None,
) -> tuple[str, str] | None:
    """Cause and detail of what is wrong with an utterance's audio; None if nothing is.

    Args:
        path: the file.
        duration: seconds that the manifest gives the utterance.
        sample_rate: wanted, in Hz; None for any.
        whole: decode all of it, not only its end.
        conversion: what may be converted.
        part: of the file, if it is one: start and stop, in seconds where they are as far apart as
            the duration says, and in samples where they are so in the file's rate.
    """
    try:
        if not Path(path).exists():
            return "missing file", path
        with sound_file(path) as file:
            place = _place(file, path, duration, sample_rate, conversion, part)
            return _samples_fault(file, path, *place) if whole else _end_fault(file, path, *place)
    except _FaultError as fault:
        return str(fault.args[0]), str(fault.args[1])
    except (OSError, soundfile.SoundFileError) as error:
        return "unreadable audio", f"{path}: {error}"


def _place(
    file: soundfile.SoundFile,
    path: str,
    duration: float,
    sample_rate: int | None,
    conversion: Conversion,
    part: Part,
) -> tuple[int, int]:
    """The first sample of an utterance in its file, and their number, by the header."""
    rate, tolerance = file.samplerate, TOLERANCES.get(file.format, TOLERANCE)
    if sample_rate not in (None, rate):
        if not conversion.resample:
            raise _FaultError("wrong sample rate", f"{path}: {rate} Hz, not {sample_rate} Hz")
        if not convertible(rate, sample_rate):
            raise _FaultError(
                "unusual sample rate", f"{path}: convert {rate} Hz to {sample_rate} Hz"
            )
    if file.channels != 1 and not conversion.mixdown:
        raise _FaultError("more than one channel", f"{path}: {file.channels} channels")
    if file.frames == 0:
        raise _FaultError("zero length", path)
    actual = file.frames / rate
    if part is None:
        if abs(actual - duration) > tolerance:
            cause = "audio of another length than in the manifest (truncated, or changed since)"
            raise _FaultError(cause, f"{path}: {actual:.2f} s, not {duration:.2f} s")
        return 0, file.frames
    first, stop = _in_samples(*part, duration, rate, path)
    if first >= file.frames or stop > file.frames + tolerance * rate:
        detail = f"{path}: it stops at {stop / rate:.2f} s of {actual:.2f} s"
        raise _FaultError("part that goes beyond the end of its file", detail)
    return first, min(stop, file.frames) - first


def _in_samples(
    start: float, stop: float, duration: float, rate: int, path: str
) -> tuple[int, int]:
    """Start and stop in samples of the file, whichever way they are given."""
    if abs(stop - start - duration) <= TOLERANCE:
        start, stop = start * rate, stop * rate
    elif abs((stop - start) / rate - duration) > TOLERANCE:
        raise _FaultError(
            "part of another length than its duration",
            f"{path}: from {start:.10g} to {stop:.10g}, which is {duration:g} s neither in seconds "
            f"nor in samples at {rate} Hz",
        )
    first, last = round(start), round(stop)
    if last <= first:
        raise _FaultError("zero length", path)
    return first, last


class SampleReader:
    """Samples of a file from any one on; of a coder that cannot go to one, such as telephony's GSM
    6.10, those before it are decoded and dropped.

    Args:
        file: newly opened.
    """

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file
        self._position = 0  # where the file itself cannot tell

    def read(self, first: int, count: int) -> np.ndarray:
        """All is read at once: where it can, soundfile seeks after each reading.

        Args:
            first: of the samples wanted; where the file cannot go to one, none that was read.
            count: of them, at most.

        Returns:
            ``[n]``, or ``[n, channels]``, float32.
        """
        file = self._file
        if file.seekable():
            start = max(0, first - RUN_UP.get(file.format, 0))
            file.seek(start)
            return file.read(first - start + count, dtype="float32")[first - start :]
        while self._position < first and len(self._next(min(BLOCK, first - self._position))):
            pass
        return self._next(count)

    def _next(self, count: int) -> np.ndarray:
        samples = self._file.read(count, dtype="float32")
        self._position += len(samples)
        return samples


def _end_fault(
    file: soundfile.SoundFile, path: str, first: int, expected: int
) -> tuple[str, str] | None:
    last = SampleReader(file).read(first + expected - 1, 1)
    return None if len(last) else ("truncated audio", path)


def _samples_fault(
    file: soundfile.SoundFile, path: str, first: int, expected: int
) -> tuple[str, str] | None:
    reader, read, peak = SampleReader(file), 0, 0.0
    while read < expected:
        block = reader.read(first + read, min(BLOCK, expected - read))
        if not len(block):
            return "truncated audio", f"{path}: {read} of {expected} samples"
        if not np.isfinite(block).all():
            return "audio with samples that are not finite numbers", path
        read += len(block)
        peak = max(peak, float(np.abs(block).max()))
    return None if peak > 0 else (SILENT, path)
