"""What a split of LibriSpeech's layout holds: its utterances, and why others cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import soundfile

from todm_sb.dataio.chapters import AUDIO, Chapter, Line, unique_ids
from todm_sb.dataio.faults import EMPTY, Fault
from todm_sb.dataio.manifest import Row
from todm_sb.dataio.reading import LETTER_CASES
from todm_sb.utils.errors import quoted
from todm_sb.utils.folders import is_text, shown
from todm_sb.utils.progress import bar

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Which utterances are wanted of a split, and how.

    Args:
        folder: the split's.
        limit: if given, no more than so many transcribed utterances, the first ones.
        letter_case: one of `LETTER_CASES`.
        keep_all: with those that have a fault, of duration 0.
    """

    folder: Path
    limit: int | None = None
    letter_case: str = "keep"
    keep_all: bool = False


def examine_split(
    split: Split, chapters: Sequence[Chapter], num_threads: int = 8
) -> tuple[list[Row], list[Fault]]:
    """Reads the transcripts of a split and the headers of its audio files.

    Args:
        split: what is wanted.
        chapters: of the split.
        num_threads: audio files opened at a time.

    Returns:
        The usable utterances in the order of the transcripts' paths, and what is wrong with the
        others.

    Raises:
        DataError: if a transcript is not UTF-8, or two utterances cannot be told apart.
    """
    transcribed, wordless, faults = _lines_of(chapters)
    if not split.keep_all:
        wordless = []
    ids = _ids_of(split.folder.name, transcribed, wordless)

    def examine(item: tuple[Chapter, Line]) -> float | Fault:
        return _examine(*item)

    work = transcribed[: split.limit]
    with ThreadPoolExecutor(num_threads) as pool:
        examined = list(
            bar(pool.map(examine, work), total=len(work), desc=split.folder.name, unit="utt")
        )
    faults += [found for found in examined if isinstance(found, Fault)]
    change = LETTER_CASES[split.letter_case]
    rows = []
    for name, (chapter, line), found in zip(ids, work, examined, strict=False):
        if split.keep_all or not isinstance(found, Fault):
            seconds = 0.0 if isinstance(found, Fault) else found
            rows.append(_row(name, seconds, chapter, replace(line, words=change(line.words))))
    rows += [
        _row(name, 0.0, *item) for name, item in zip(ids[len(transcribed) :], wordless, strict=True)
    ]
    return rows, faults


Lines = list[tuple[Chapter, Line]]


def _lines_of(chapters: Sequence[Chapter]) -> tuple[Lines, Lines, list[Fault]]:
    """Utterances with a transcript, those of which nobody knows what is said in them, and why."""
    transcribed: Lines = []
    wordless: Lines = []
    faults: list[Fault] = []
    for chapter in chapters:
        found, contradictions = chapter.lines()
        transcribed += [(chapter, line) for line in found]
        known = {line.id for line in found} | {line.id for line, _ in contradictions}
        unheard = {name: path for name, path in chapter.audio.items() if name not in known}
        wordless += [(chapter, replace(line, words="")) for line, _ in contradictions]
        wordless += [(chapter, Line(name, "", path)) for name, path in unheard.items()]
        faults += [_contradiction(*lines) for lines in contradictions]
        faults += [_untranscribed(path) for path in unheard.values()]
    return transcribed, wordless, faults


def _ids_of(split: str, transcribed: Lines, wordless: Lines) -> list[str]:
    """A name for each utterance, no two alike."""
    ids = unique_ids(
        [
            (line.id, f"{chapter.name}-{line.id}", _path_of(chapter, line))
            for chapter, line in (*transcribed, *wordless)
        ]
    )
    renamed = sum(name != line.id for name, (_, line) in zip(ids, transcribed, strict=False))
    if renamed:
        logger.info(
            "%s: %d utterances have the id of another one, and are named by speaker and chapter",
            split,
            renamed,
        )
    return ids


def _path_of(chapter: Chapter, line: Line) -> Path:
    """Where the audio of a line is, or should be."""
    return chapter.audio.get(line.id, chapter.folder / f"{line.id}{AUDIO}")


def _row(name: str, seconds: float, chapter: Chapter, line: Line) -> Row:
    """Names that are not UTF-8 are escaped in it: there is no such file, but it can be written."""
    path = _path_of(chapter, line)
    name, wav, speaker = (
        x.encode(errors="backslashreplace").decode() for x in (name, str(path), chapter.speaker)
    )
    return Row(name, seconds, wav, speaker, line.words)


def _fault(name: str, cause: str, detail: str) -> Fault:
    """Of an utterance, or of a file, that no manifest has yet."""
    return Fault(0, name, cause, detail)


def _examine(chapter: Chapter, line: Line) -> float | Fault:
    """Seconds of an utterance, if it has words and its audio is there and can be opened."""
    path = chapter.audio.get(line.id)
    if path is None:
        return _fault(
            line.id,
            "transcript without audio",
            f"utterance {line.id} has no audio: put {line.id}{AUDIO} beside {line.file}, "
            "or remove its line there",
        )
    if not line.words:
        return _fault(
            line.id,
            EMPTY,
            f"utterance {line.id} has an empty transcript: write its words into {line.file}, "
            "or remove the line",
        )
    if not is_text(path):
        mend = "rename the file or folder"
        return _fault(line.id, "name that is no text", f"{shown(path)} is not UTF-8: {mend}")
    try:
        header = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        return _fault(line.id, "unreadable audio", f"cannot read {path} ({error}): fetch it again")
    if not header.frames:
        return _fault(line.id, "unreadable audio", f"{path} is without a sample: fetch it again")
    return header.frames / header.samplerate


def _untranscribed(path: Path) -> Fault:
    return _fault(
        str(path),
        "audio without transcript",
        f"{shown(path)} has no transcript: add its line to the .trans.txt beside it, or remove it",
    )


def misplaced_fault(path: Path) -> Fault:
    """Of an audio file that is in no chapter."""
    return _fault(
        str(path),
        "audio in no chapter",
        f"{shown(path)} is not in <split>/<speaker>/<chapter>/: move it there with its transcript",
    )


def _contradiction(one: Line, other: Line) -> Fault:
    where = f"{one.file}" if one.file == other.file else f"{one.file} and {other.file}"
    return _fault(
        one.id,
        "contradictory transcripts",
        f"utterance {one.id} has two transcripts, {quoted(one.words)} and {quoted(other.words)}, "
        f"in {where}: remove one",
    )
