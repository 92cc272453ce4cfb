"""What may be asked of any recogniser, and transcribing with it: long audio, and many files.

Nothing here needs torch: a recogniser may be a network of PyTorch or of onnxruntime.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from todm_sb.inference.audio_file import check_wave
from todm_sb.inference.results import Alternative, Segment, Transcript
from todm_sb.inference.segments import SHORTEST_LIMIT, segments_of
from todm_sb.inference.sources import Source
from todm_sb.utils.errors import DataError

Samples = NDArray[np.float32]

# Seconds of a part of long audio where nobody knows how long the utterances of training were.
UNKNOWN_LONGEST = 20.0
# Seconds of a batch, padding included.
BATCH_SECONDS = 60.0
# Audio that is held in memory, and sorted by length, before anything is written: seconds, files.
WINDOW_SECONDS, WINDOW_FILES = 600.0, 64


class Recogniser(Protocol):
    """From samples to words."""

    @property
    def sample_rate(self) -> int:
        """Of the samples, in Hz."""

    @property
    def longest_seconds(self) -> float | None:
        """The longest utterance that the network was trained on; None if it is not known."""

    def load(self, path: str) -> Samples:
        """The samples of a file, at :attr:`sample_rate`, of full scale 1.

        Args:
            path: of the file, or ``-`` for standard input.

        Raises:
            DataError: if it is no audio that can be heard.
        """

    def recognise(self, waves: Sequence[Samples]) -> list[list[Alternative]]:
        """Transcribes a batch; each gets what it gets alone.

        Args:
            waves: (samples,) each, at :attr:`sample_rate`.

        Returns:
            What was found in each, best first, at least one; times are from its beginning.
        """


@dataclass(frozen=True)
class Cutting:
    """How audio is cut and put into batches.

    Args:
        longest: seconds of a part at most; infinite for none, None for the longest utterance of
            training.
        batch_seconds: of a batch, padding included; a longer part is a batch of its own.
    """

    longest: float | None = None
    batch_seconds: float = BATCH_SECONDS

    def of(self, recogniser: Recogniser) -> float:
        """Seconds of a part at most; where utterances of training were shorter than a part may be,
        the least."""
        if self.longest is not None:
            return self.longest
        return max(recogniser.longest_seconds or UNKNOWN_LONGEST, SHORTEST_LIMIT)


@dataclass(frozen=True)
class _Part:
    """A part of some audio.

    Args:
        wave: which audio.
        begin, end: in samples.
    """

    wave: int
    begin: int
    end: int


def transcribe_waves(
    recogniser: Recogniser, waves: Sequence[Samples], cutting: Cutting | None = None
) -> list[Transcript]:
    """Transcribes some audio, long or short, in batches of similar length.

    Args:
        recogniser: does it.
        waves: (samples,) each.
        cutting: see :class:`Cutting`.

    Raises:
        DataError: if samples are no finite numbers, or not of one channel.
    """
    cutting = cutting or Cutting()
    waves = [check_wave(wave) for wave in waves]
    rate, longest = recogniser.sample_rate, cutting.of(recogniser)
    parts = [
        _Part(i, begin, end)
        for i, wave in enumerate(waves)
        for begin, end in _cut(wave, rate, longest)
    ]
    found: dict[_Part, list[Alternative]] = {}
    most = round(min(cutting.batch_seconds * rate, sys.maxsize))
    for batch in _batches(parts, most):
        audio = [waves[part.wave][part.begin : part.end] for part in batch]
        found.update(zip(batch, recogniser.recognise(audio), strict=True))
    segments: list[list[Segment]] = [[] for _ in waves]
    for part in parts:
        begin, end = part.begin / rate, part.end / rate
        alternatives = tuple(x.shifted(begin) for x in found[part])
        segments[part.wave].append(Segment(begin, end, alternatives))
    return [
        Transcript(len(wave) / rate, tuple(own)) for wave, own in zip(waves, segments, strict=True)
    ]


def _cut(wave: Samples, rate: int, longest: float) -> list[tuple[int, int]]:
    return segments_of(wave, rate, longest) if longest < np.inf else [(0, len(wave))]


def _batches(parts: Sequence[_Part], most: int) -> Iterator[list[_Part]]:
    """The longest first; ``most`` samples each, padding included, or one part."""
    rest = sorted(parts, key=lambda part: part.begin - part.end)
    while rest:
        longest = rest[0].end - rest[0].begin
        n = max(1, most // max(1, longest))
        yield rest[:n]
        rest = rest[n:]


@dataclass(frozen=True)
class Transcribed:
    """What became of a file.

    Args:
        source: the file.
        transcript: what was said, unless there is an error.
        error: why nobody knows.
        seconds: that it took, as its share of the files that were transcribed with it.
    """

    source: Source
    transcript: Transcript | None = None
    error: str | None = None
    seconds: float = 0.0


def transcribe_sources(
    recogniser: Recogniser,
    sources: Iterable[Source],
    cutting: Cutting | None = None,
    load: Callable[[Source], Samples] | None = None,
) -> Iterator[Transcribed]:
    """Transcribes files, many at a time; one that cannot be heard costs the others nothing.

    Args:
        recogniser: does it.
        sources: the files.
        cutting: see :class:`Cutting`.
        load: as :meth:`Recogniser.load`, of a source; None for that.

    Yields:
        What became of each, in their order.
    """
    load = load or (lambda source: recogniser.load(source.path))
    for window in _windows(load, recogniser.sample_rate, sources):
        yield from _transcribed(recogniser, window, cutting)


def _transcribed(
    recogniser: Recogniser,
    window: Sequence[tuple[Transcribed, Samples | None]],
    cutting: Cutting | None,
) -> Iterator[Transcribed]:
    begin = time.perf_counter()
    heard = [samples for _, samples in window if samples is not None]
    transcripts = iter(transcribe_waves(recogniser, heard, cutting))
    took = time.perf_counter() - begin
    total = sum(map(len, heard))
    for done, samples in window:
        if samples is None:
            yield done
        else:
            share = took * len(samples) / max(1, total)
            yield replace(done, transcript=next(transcripts), seconds=done.seconds + share)


def _windows(
    load: Callable[[Source], Samples], rate: int, sources: Iterable[Source]
) -> Iterator[list[tuple[Transcribed, Samples | None]]]:
    """Loaded files, a bounded number at a time; none is kept while the next ones are loaded."""
    window: list[tuple[Transcribed, Samples | None]] = []
    for source in sources:
        window.append(_loaded(load, source))
        held = sum(len(samples) for _, samples in window if samples is not None)
        if held > WINDOW_SECONDS * rate or len(window) >= WINDOW_FILES:
            yield window
            window.clear()
    if window:
        yield window


def _loaded(
    load: Callable[[Source], Samples], source: Source
) -> tuple[Transcribed, Samples | None]:
    begin = time.perf_counter()
    try:
        samples: Samples | None = check_wave(load(source), source.path)
        error = None
    except DataError as reason:
        samples, error = None, str(reason)
    return Transcribed(source, error=error, seconds=time.perf_counter() - begin), samples
