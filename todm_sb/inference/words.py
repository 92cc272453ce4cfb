"""From labels and the frames at which they were emitted to words with times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from todm_sb.dataio.detokenizer import Detokenizer, TextState
from todm_sb.dataio.script import is_wide
from todm_sb.inference.results import Word

# A transducer emits a label while it is spoken, and nothing when it ends. So a word ends where the
# next one begins, but no later than so many seconds after its last label.
LONGEST_TAIL = 0.4


@dataclass(frozen=True)
class Labels:
    """What a search found in some audio.

    Args:
        ids: label ids.
        frames: the encoder frame of each.
        log_probs: log-probability of each.
    """

    ids: list[int]
    frames: list[int]
    log_probs: list[float]

    def add(self, label: int, frame: int, log_prob: float) -> None:
        """Adds the next one."""
        self.ids.append(label)
        self.frames.append(frame)
        self.log_probs.append(log_prob)


def words_of_labels(
    labels: Labels, detokenizer: Detokenizer, frame_seconds: float, seconds: float
) -> list[Word]:
    """The words of labels: what stands between white space, and each character of Chinese and
    Japanese.

    A word begins at the frame of its first letter.

    Args:
        labels: in the order of their frames.
        detokenizer: of the network.
        frame_seconds: from one encoder frame to the next.
        seconds: of audio.
    """
    spans = _spans(labels.ids, detokenizer)
    starts = [min(labels.frames[span.first] * frame_seconds, seconds) for span in spans]
    words = []
    for span, start, limit in zip(spans, starts, [*starts, seconds][1:], strict=True):
        spoken = labels.frames[span.last] * frame_seconds
        # Several words may share a frame.
        end = max(start, min(limit, spoken + LONGEST_TAIL))
        log_probs = labels.log_probs[span.begin : span.last + 1]
        words.append(Word(span.text, start, end, math.exp(sum(log_probs) / len(log_probs))))
    return words


class _Span(NamedTuple):
    """A word, and the places of its labels.

    Args:
        text: the word.
        first: that of its first letter.
        begin: its first one, which may be no more than a space.
        last: its last one.
    """

    text: str
    first: int
    begin: int
    last: int


def _spans(ids: Sequence[int], detokenizer: Detokenizer) -> list[_Span]:
    spans: list[_Span] = []
    word, first, begin, last = "", 0, 0, 0
    for character, its_first, its_last in _characters(ids, detokenizer):
        if word and (character.isspace() or is_wide(character) or is_wide(word)):
            spans.append(_Span(word, first, begin, last))
            word, begin = "", its_first
        if character.isspace():
            continue
        if not word:
            first = its_first
        word += character
        last = its_last
    if word:
        spans.append(_Span(word, first, begin, len(ids) - 1))
    return spans


def _characters(ids: Sequence[int], detokenizer: Detokenizer) -> Iterator[tuple[str, int, int]]:
    """The characters of the text, each with the places of its first label and its last, of which it
    has several where they are its bytes."""
    state = TextState()
    for i, label in enumerate(ids):
        first = i - len(state.pending)  # bytes that were held back, one a label
        for character in detokenizer.feed(state, [label]):
            yield character, first, i
            first = i
    first = len(ids) - len(state.pending)
    for character in detokenizer.end(state):
        yield character, first, len(ids) - 1
