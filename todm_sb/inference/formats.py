"""Transcripts as files: text, JSON, subtitles (SubRip, WebVTT) and NIST's CTM."""

from __future__ import annotations

import html
import itertools
import json
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from todm_sb.dataio.script import join_words
from todm_sb.dataio.text import printable
from todm_sb.inference.results import Transcript, Word

FORMATS = ("text", "json", "jsonl", "srt", "vtt", "ctm")
# Of a file of each.
SUFFIXES = {"text": ".txt", "json": ".json", "jsonl": ".jsonl", "srt": ".srt", "vtt": ".vtt"}
SUFFIXES["ctm"] = ".ctm"
# Those of which one file can tell of several recordings.
TOGETHER = ("text", "json", "jsonl", "ctm")

# Subtitles: two lines of 42 letters, as broadcasters have it, and as long as one can read.
LINE_LETTERS = 42
CUE_SECONDS = 6.0
# What ends no later than it begins is not shown, nor allowed in WebVTT.
SHORTEST_CUE = 0.1
# A pause that ends one.
CUE_PAUSE = 0.8


@dataclass(frozen=True)
class Cue:
    """A subtitle.

    Args:
        start, end: in seconds.
        text: one line or two.
    """

    start: float
    end: float
    text: str


def as_text(transcript: Transcript) -> str:
    """The text alone, a line."""
    return printable(transcript.text) + "\n"


def as_json(found: Any, indent: int | None = None) -> str:
    """An object, or a list of such, as JSON; what JSON does not escape is escaped as it does."""
    text = json.dumps(found, ensure_ascii=False, indent=indent)
    # Line breaks between lines are JSON's own.
    return "\n".join(printable(line, "\\u{:04x}") for line in text.split("\n")) + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip."""
    cues = enumerate(cues_of(transcript), start=1)
    return "".join(
        f"{i}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for i, cue in cues
    )


def as_vtt(transcript: Transcript) -> str:
    """WebVTT."""
    cues = "".join(
        f"\n{_clock(cue.start)} --> {_clock(cue.end)}\n{html.escape(cue.text, quote=False)}\n"
        for cue in cues_of(transcript)
    )
    return f"WEBVTT\n{cues}"


def as_ctm(transcript: Transcript, name: str) -> str:
    """NIST's time-marked conversation: recording, channel, start, duration, word, confidence.

    Args:
        transcript: it.
        name: of the recording; see :func:`ctm_name`.
    """
    return "".join(
        f"{ctm_name(name)} 1 {word.start:.3f} {word.end - word.start:.3f} "
        f"{printable(word.text)} {word.confidence:.3f}\n"
        for word in transcript.words
    )


def ctm_name(name: str) -> str:
    """What NIST's CTM calls a recording: white space, which ends a field, becomes ``_``."""
    return printable(re.sub(r"\s", "_", name))


def cues_of(transcript: Transcript) -> list[Cue]:
    """The subtitles of a transcript; none goes across a pause or is too long to read."""
    cues: list[Cue] = []
    for words in _groups(transcript.words):
        lines = _lines([word.text for word in words])
        start, end = words[0].start, words[-1].end
        cues.append(Cue(start, max(end, start + SHORTEST_CUE), "\n".join(lines)))
    return cues


def _groups(words: Sequence[Word]) -> Iterator[list[Word]]:
    group: list[Word] = []
    shown = (Word(printable(x.text), x.start, x.end, x.confidence) for x in words)
    for word in itertools.chain.from_iterable(map(_parts, shown)):
        if group and not _fits(group, word):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _parts(word: Word) -> Iterator[Word]:
    """A word; of one that no line holds, such as a sentence in Thai, parts of a line each. Their
    times are by their letters, and none begins with a mark of the letter before it."""
    if len(word.text) <= LINE_LETTERS:
        yield word
        return
    n_parts = math.ceil(len(word.text) / LINE_LETTERS)
    size = math.ceil(len(word.text) / n_parts)
    texts = [""]
    for letter in word.text:
        if len(texts[-1]) >= size and not unicodedata.category(letter).startswith("M"):
            texts.append("")
        texts[-1] += letter
    start, letter_seconds = word.start, (word.end - word.start) / len(word.text)
    for text in texts:
        end = start + len(text) * letter_seconds
        yield Word(text, start, end, word.confidence)
        start = end


def _fits(group: list[Word], word: Word) -> bool:
    """Whether two lines hold the word, too: as much as goes on the first, and the rest."""
    if word.end - group[0].start > CUE_SECONDS or word.start - group[-1].end > CUE_PAUSE:
        return False
    texts = [w.text for w in (*group, word)]
    counts = range(1, len(texts) + 1)
    first = bisect_right(counts, LINE_LETTERS, key=lambda n: len(join_words(texts[:n])))
    return len(join_words(texts[first:])) <= LINE_LETTERS


def _lines(words: Sequence[str]) -> list[str]:
    """One line, or two of about the same length."""
    whole = join_words(words)
    if len(whole) <= LINE_LETTERS or len(words) == 1:
        return [whole]
    splits = [(join_words(words[:i]), join_words(words[i:])) for i in range(1, len(words))]
    return list(min(splits, key=lambda lines: max(map(len, lines))))


def _clock(seconds: float, point: str = ".") -> str:
    milliseconds = round(1000 * seconds)
    rest, milliseconds = divmod(milliseconds, 1000)
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}{point}{milliseconds:03}"
