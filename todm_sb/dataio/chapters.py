"""Audio and transcripts in LibriSpeech's folders, paired chapter by chapter.

The layout is ``<split>/<speaker>/<chapter>/<id>.flac`` with the words of a chapter beside its
audio, a line ``<id> <words>`` for each utterance, in ``<speaker>-<chapter>.trans.txt`` or any other
``*.trans.txt``. Ids need be unique within a chapter only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from todm_sb.utils.errors import DataError
from todm_sb.utils.folders import files, subfolders
from todm_sb.utils.text_files import BOM, lines, read_text, words

AUDIO = ".flac"
TRANSCRIPT = ".trans.txt"


@dataclass(frozen=True)
class Line:
    """One line of a transcript file.

    Args:
        id: of the utterance, its audio's name without suffix.
        words: as they are written, with single spaces.
        file: the transcript file.
    """

    id: str
    words: str
    file: Path


@dataclass(frozen=True)
class Chapter:
    """What one speaker reads in one folder.

    Args:
        folder: ``<split>/<speaker>/<chapter>``.
        audio: its audio files, by id.
        transcripts: its transcript files.
    """

    folder: Path
    audio: dict[str, Path]
    transcripts: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Chapter:
        """The chapter in a folder."""
        audio = {path.name.removesuffix(AUDIO): path for path in files(folder, AUDIO)}
        return cls(folder, audio, tuple(files(folder, TRANSCRIPT)))

    @property
    def name(self) -> str:
        """Folders of speaker and chapter, as LibriSpeech's file names spell them."""
        return f"{self.speaker}-{self.folder.name}"

    @property
    def speaker(self) -> str:
        """The folder of the speaker."""
        return self.folder.parent.name

    def lines(self) -> tuple[list[Line], list[tuple[Line, Line]]]:
        """What the transcripts say of each utterance.

        Returns:
            A line for each utterance, and pairs of lines that contradict each other, of whose
            utterances there is none among the former.

        Raises:
            DataError: if a transcript is not UTF-8.
        """
        first: dict[str, Line] = {}
        contradictions: dict[str, tuple[Line, Line]] = {}
        for file in self.transcripts:
            for text in lines(read_text(file)):
                # Files that were put one after another keep their byte order marks.
                if found := words(text.lstrip(BOM)):
                    line = Line(found[0], " ".join(found[1:]), file)
                    known = first.setdefault(line.id, line)
                    if known.words != line.words:
                        contradictions.setdefault(line.id, (known, line))
        sound = [line for name, line in first.items() if name not in contradictions]
        return sound, list(contradictions.values())


def find_chapters(split: Path, num_threads: int = 8) -> list[Chapter]:
    """The chapters of a split in the order of their folders' names.

    Args:
        split: folder of the speakers' folders.
        num_threads: folders looked into at a time.
    """
    folders = [chapter for speaker in subfolders(split) for chapter in subfolders(speaker)]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(Chapter.of, folders))


def misplaced_audio(split: Path, chapters: Iterable[Chapter]) -> list[Path]:
    """Audio files one folder above those of the chapters, two above, or one below.

    Args:
        split: folder of the speakers' folders.
        chapters: of the split.
    """
    below = (folder for chapter in chapters for folder in subfolders(chapter.folder))
    return [path for folder in (split, *subfolders(split), *below) for path in files(folder, AUDIO)]


def is_split(folder: Path) -> bool:
    """Whether a folder holds a transcript where a split has them."""
    chapters = (chapter for speaker in subfolders(folder) for chapter in subfolders(speaker))
    return any(files(chapter, TRANSCRIPT) for chapter in chapters)


def unique_ids(utterances: Sequence[tuple[str, str, str | Path]]) -> list[str]:
    """A name for each utterance that no other has.

    Args:
        utterances: of each its id, an id to take instead where another has the first, too, and its
            file.

    Raises:
        DataError: if the second does not tell two of them apart either; it names their files.
    """
    times = Counter(name for name, _, _ in utterances)
    names = [name if times[name] == 1 else longer for name, longer, _ in utterances]
    first: dict[str, str | Path] = {}
    for name, (_, _, file) in zip(names, utterances, strict=True):
        if name in first:
            raise DataError(
                f"utterance {name} is there twice, {first[name]} and {file}: rename or remove one"
            )
        first[name] = file
    return names


def transcripts_digest(chapters: Iterable[Chapter]) -> str:
    """Fingerprint of all transcripts, so that a corpus made anew is read anew."""
    digest = hashlib.sha256()
    for chapter in chapters:
        for file in chapter.transcripts:
            content = file.read_bytes()
            digest.update(f"{chapter.name}/{file.name} {len(content)} ".encode(errors="replace"))
            digest.update(content)
    return digest.hexdigest()


def reference_of(audio: Path) -> str | None:
    """The transcript of an audio file in LibriSpeech's layout; None if it has none.

    Args:
        audio: ``<id>.flac``, a line for which is in a ``*.trans.txt`` beside it.

    Raises:
        DataError: if a transcript is not UTF-8.
    """
    if not audio.parent.is_dir():
        return None
    found, _ = Chapter.of(audio.parent).lines()
    return next((line.words for line in found if line.id == audio.stem), None)
