"""A manifest of a folder of audio with a text file beside each: ``a/b.wav`` and ``a/b.txt``."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from todm_sb.dataio.audio import SUFFIXES, sound_file
from todm_sb.dataio.faults import EMPTY, Fault
from todm_sb.dataio.manifest import Row
from todm_sb.utils.errors import DataError
from todm_sb.utils.folders import files_below, is_text, shown
from todm_sb.utils.progress import bar
from todm_sb.utils.text_files import read_text, words


def folder_rows(
    folder: str | Path, base: str | Path, text_suffix: str = ".txt", num_threads: int = 8
) -> tuple[list[Row], list[Fault]]:
    """The utterances in a folder and those below it, hidden ones left out.

    An utterance is called by its path in the folder, without suffix, and its speaker by the folder
    that it lies in. A text of several lines is one.

    Args:
        folder: of the audio.
        base: folder of the manifest: audio below it has a relative path.
        text_suffix: of the text files.
        num_threads: audio files opened at a time.

    Returns:
        The utterances by their paths, and why other files are none; the line of a fault is 0.

    Raises:
        DataError: if there is no such folder.
    """
    folder, base = Path(folder), Path(os.path.abspath(base))
    if not folder.is_dir():
        raise DataError(f"folder {folder} is not there: name the one that holds the audio")
    found = sorted(files_below(folder))
    audio = [path for path in found if path.suffix.lower() in SUFFIXES]
    first: dict[Path, Path] = {}
    for path in audio:
        first.setdefault(path.with_suffix(""), path)

    def examine(path: Path) -> Row | Fault:
        if (other := first[path.with_suffix("")]) != path:
            return Fault(0, shown(path), "audio of a name that another has", shown(other))
        return _utterance(path, folder, base, text_suffix)

    with ThreadPoolExecutor(num_threads) as pool:
        work = list(bar(pool.map(examine, audio), desc="audio", total=len(audio), unit="file"))
    lone = [
        Fault(0, shown(path), "text without audio", "put the audio beside it, or remove it")
        for path in found
        if path.suffix == text_suffix and path.with_suffix("") not in first
    ]
    rows = [item for item in work if isinstance(item, Row)]
    return rows, [*(item for item in work if isinstance(item, Fault)), *lone]


def _utterance(path: Path, folder: Path, base: Path, text_suffix: str) -> Row | Fault:
    if not is_text(path):
        return Fault(0, shown(path), "name that is no text", "rename the file or folder")
    beside = path.with_suffix(text_suffix)
    try:
        text = " ".join(words(read_text(beside)))
    except DataError as error:
        return Fault(0, str(path), "unreadable text", str(error))
    except OSError as error:
        cause = "audio without text" if not beside.exists() else "unreadable text"
        return Fault(0, str(path), cause, f"{beside}: {error.strerror or error}")
    if not text:
        return Fault(0, str(path), EMPTY, f"write what is said into {beside}")
    try:
        with sound_file(path) as file:
            frames, rate = file.frames, file.samplerate
    except (OSError, soundfile.SoundFileError) as error:
        return Fault(0, str(path), "unreadable audio", " ".join(str(error).split()))
    if not frames:
        return Fault(0, str(path), "zero length", "record it again")
    name = path.relative_to(folder).with_suffix("")
    speaker = name.parent.as_posix() if name.parent.name else ""
    wav = Path(os.path.abspath(path))
    wav = wav.relative_to(base) if wav.is_relative_to(base) else wav
    return Row(name.as_posix(), frames / rate, str(wav), speaker, text)
