"""What a recogniser found, as plain data that needs neither torch nor a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from todm_sb.dataio.script import join_words


@dataclass(frozen=True)
class Word:
    """A word and where it is.

    Args:
        text: it.
        start, end: seconds from the beginning of the audio.
        confidence: the geometric mean of the probabilities of its labels, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float

    def shifted(self, seconds: float) -> Word:
        """The same later."""
        return Word(self.text, self.start + seconds, self.end + seconds, self.confidence)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; milliseconds and three digits."""
        return {
            "word": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "confidence": round(self.confidence, 3),
        }


@dataclass(frozen=True)
class Alternative:
    """One thing that may have been said.

    Args:
        text: it.
        words: the same, word by word; their texts need not add up to ``text`` letter by letter.
        score: log-probability, with what language models and hot words add to it.
    """

    text: str
    words: tuple[Word, ...]
    score: float

    def shifted(self, seconds: float) -> Alternative:
        """The same later."""
        return Alternative(self.text, tuple(w.shifted(seconds) for w in self.words), self.score)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "text": self.text,
            "score": round(self.score, 4),
            "words": [word.to_dict() for word in self.words],
        }


@dataclass(frozen=True)
class Segment:
    """A part of the audio that was transcribed by itself.

    Args:
        start, end: seconds from the beginning of the audio.
        alternatives: what was found, best first, at least one.
    """

    start: float
    end: float
    alternatives: tuple[Alternative, ...]

    @property
    def best(self) -> Alternative:
        """The most probable one."""
        return self.alternatives[0]


@dataclass(frozen=True)
class Transcript:
    """What was said in some audio.

    Args:
        seconds: of audio.
        segments: its parts, in order; one unless it is long.
    """

    seconds: float
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The best text."""
        return join_words(segment.best.text for segment in self.segments)

    @property
    def words(self) -> list[Word]:
        """Those of the best text."""
        return [word for segment in self.segments for word in segment.best.words]

    def to_dict(self, nbest: int = 1) -> dict[str, Any]:
        """Plain types, for JSON.

        Args:
            nbest: alternatives of each segment; with more than one, ``segments`` has them.
        """
        found: dict[str, Any] = {
            "seconds": round(self.seconds, 3),
            "text": self.text,
            "words": [word.to_dict() for word in self.words],
        }
        if nbest > 1:
            found["segments"] = [*self._segments(nbest)]
        return found

    def _segments(self, nbest: int) -> Iterator[dict[str, Any]]:
        for segment in self.segments:
            yield {
                "start": round(segment.start, 3),
                "end": round(segment.end, 3),
                "nbest": [found.to_dict() for found in segment.alternatives[:nbest]],
            }
