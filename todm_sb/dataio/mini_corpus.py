"""A small corpus of spoken commands, synthesised on the spot in LibriSpeech's own layout.

It lets every recipe run in minutes and without a download: a grammar writes the sentences,
espeak-ng speaks them in many voices, and `todm_sb.dataio.librispeech` reads the result as it reads
LibriSpeech. Sentences and voices of ``dev-clean`` and ``test-clean`` are unseen in ``train``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import torch
import torchaudio.functional

from todm_sb.dataio.audio import flac_of
from todm_sb.dataio.chapters import AUDIO, TRANSCRIPT
from todm_sb.dataio.espeak import SAMPLE_RATE as ESPEAK_RATE
from todm_sb.dataio.espeak import Voice, synthesize
from todm_sb.dataio.mini_grammar import distinct_sentences
from todm_sb.utils.errors import DataError, quoted
from todm_sb.utils.files import read_record, write_atomic
from todm_sb.utils.folders import size
from todm_sb.utils.progress import bar

OPTIONS_NAME = "mini_corpus.json"
# Bytes of each audio file as it was written, by its path inside the corpus.
SIZES_NAME = "mini_corpus_sizes.json"

# To be raised with any change in how an utterance of the plan is turned into audio.
AUDIO_VERSION = 1

# One speaker a line: accent, variant, pitch, rate. No variant is in two splits, and none whispers,
# croaks or plays the robot. Those of dev and test lie within what the training voices span.
VOICES: dict[str, tuple[Voice, ...]] = {
    "train": (
        Voice("en-us", "m1", 50, 165),
        Voice("en-us", "m3", 44, 180),
        Voice("en-us", "max", 60, 155),
        Voice("en-us", "f2", 50, 170),
        Voice("en-us", "f4", 42, 160),
        Voice("en-us", "linda", 46, 185),
        Voice("en", "m4", 56, 170),
        Voice("en", "Alex", 48, 150),
        Voice("en", "f1", 52, 175),
        Voice("en", "Annie", 40, 165),
        Voice("en-gb-x-rp", "m6", 42, 160),
        Voice("en-gb-x-rp", "Denis", 54, 185),
        Voice("en-gb-x-rp", "Andrea", 44, 155),
        Voice("en-gb-scotland", "m7", 50, 155),
        Voice("en-gb-scotland", "quincy", 55, 170),
        Voice("en-gb-scotland", "steph", 58, 180),
        Voice("en-029", "Michael", 46, 165),
        Voice("en-029", "Alicia", 45, 180),
        Voice("en-gb-x-gbclan", "paul", 52, 180),
        Voice("en-gb-x-gbclan", "shelby", 50, 160),
        Voice("en-gb-x-gbcwmd", "Diogo", 48, 170),
        Voice("en-gb-x-gbcwmd", "marcelo", 58, 160),
        Voice("en-us-nyc", "robert", 50, 175),
        Voice("en-us-nyc", "Gene", 46, 165),
    ),
    "dev-clean": (
        Voice("en-us", "m5", 49, 162),
        Voice("en", "f5", 45, 172),
        Voice("en-gb-x-rp", "Mike", 53, 168),
        Voice("en-gb-x-gbcwmd", "victor", 51, 177),
    ),
    "test-clean": (
        Voice("en-us", "m2", 51, 172),
        Voice("en-us", "f3", 47, 163),
        Voice("en", "rob", 47, 167),
        Voice("en-gb-x-rp", "aunty", 49, 178),
        Voice("en-gb-scotland", "Mario", 49, 164),
        Voice("en-029", "m8", 53, 173),
    ),
}


@dataclass(frozen=True)
class Utterance:
    """One sentence as one speaker is to say it.

    Args:
        split: folder of the split.
        speaker: LibriSpeech-like number of the speaker.
        index: number of the utterance among the speaker's.
        sentence: lower-case words.
        voice: the speaker's voice.
    """

    split: str
    speaker: int
    index: int
    sentence: str
    voice: Voice

    @property
    def chapter(self) -> str:
        """The one chapter each speaker reads, as LibriSpeech's file names spell it."""
        return f"{self.speaker}-{1000 + self.speaker}"

    @property
    def id(self) -> str:
        """LibriSpeech's name of the utterance."""
        return f"{self.chapter}-{self.index:04d}"

    @property
    def folder(self) -> Path:
        """Folder of the chapter inside the corpus."""
        return Path(self.split, *self.chapter.split("-"))

    @property
    def path(self) -> Path:
        """The audio file inside the corpus."""
        return self.folder / f"{self.id}{AUDIO}"


def prepare_mini_corpus(
    data_folder: str | Path,
    seed: int = 1234,
    n_train: int = 2000,
    n_dev: int = 100,
    n_test: int = 200,
    sample_rate: int = 16000,
    skip_prep: bool = False,
    num_threads: int = 4,
) -> None:
    """Synthesises the corpus into ``<data_folder>/{train,dev-clean,test-clean}``.

    The same options give the same bytes. What is already there is kept, so that an interrupted
    run goes on where it stopped; a file that has not the size it was written with is made again,
    and a corpus made with other options is replaced; what else lies there stays.

    Args:
        data_folder: where the corpus goes; `prepare_librispeech` takes the same folder.
        seed: chooses the sentences, who says which, and how.
        n_train: utterances of ``train``.
        n_dev: utterances of ``dev-clean``.
        n_test: utterances of ``test-clean``.
        sample_rate: of the FLAC files, in Hz.
        skip_prep: if True, nothing is done.
        num_threads: utterances worked on at a time (no bearing on the result).

    Raises:
        DataError: if espeak-ng is not installed, if the folder holds anything but this corpus, or
            if the grammar does not yield so many sentences.
    """
    if skip_prep:
        return
    data_folder = Path(data_folder)
    sizes = {"train": n_train, "dev-clean": n_dev, "test-clean": n_test}
    plan = plan_corpus(seed, sizes)
    options = {
        "seed": seed,
        "sizes": sizes,
        "sample_rate": sample_rate,
        "audio_version": AUDIO_VERSION,
        "plan": hashlib.sha256(repr(plan).encode()).hexdigest(),
    }

    _clear_other_corpus(data_folder, options)
    write_atomic(data_folder / OPTIONS_NAME, json.dumps(options, indent=2) + "\n")

    def render(utterance: Utterance) -> None:
        write_atomic(data_folder / utterance.path, _flac(utterance, seed, sample_rate))

    missing = _missing(data_folder, plan)
    if missing:
        with ThreadPoolExecutor(num_threads) as pool:
            work = pool.map(render, missing)
            for _ in bar(work, total=len(missing), desc="mini corpus", unit="utt"):
                pass
    written = {u.path.as_posix(): size(data_folder / u.path) for u in plan}
    write_atomic(data_folder / SIZES_NAME, json.dumps(written, indent=0) + "\n")
    _write_transcripts(data_folder, plan)


def plan_corpus(seed: int, sizes: dict[str, int]) -> list[Utterance]:
    """Says which speaker says what, without making a sound.

    Args:
        seed: chooses the sentences and their speakers.
        sizes: number of utterances of each split.

    Returns:
        The utterances, each speaker's together. No sentence occurs twice.

    Raises:
        DataError: if the grammar does not yield so many sentences.
    """
    sentences = distinct_sentences(random.Random(f"sentences {seed}"))
    plan = []
    # Training comes last, so that its size does not change what is tested on.
    for number, split in enumerate(reversed(VOICES)):
        said = [next(sentences) for _ in range(sizes[split])]
        voices = VOICES[split]
        for position, voice in enumerate(voices):
            speaker = 100 * (number + 1) + position + 1
            plan += [
                Utterance(split, speaker, index, sentence, voice)
                for index, sentence in enumerate(said[position :: len(voices)])
            ]
    return plan


def _flac(utterance: Utterance, seed: int, sample_rate: int) -> bytes:
    """Speaks an utterance, with the small accidents of a recording, as a 16-bit FLAC file."""
    # The draws hang on the utterance alone, so that order and threads do not matter.
    rng = random.Random(f"{utterance.id} {seed}")
    voice = replace(
        utterance.voice,
        pitch=utterance.voice.pitch + rng.randint(-4, 4),
        rate=round(utterance.voice.rate * rng.uniform(0.94, 1.06)),
        pitch_range=rng.randint(35, 65),
    )
    audio = _resample(_trim(synthesize(utterance.sentence, voice), ESPEAK_RATE), sample_rate)
    audio *= 10 ** (rng.uniform(-30, -20) / 20) / audio.std()  # RMS in dB of full scale
    audio += _noise(len(audio), rng) * audio.std() * 10 ** (-rng.uniform(20, 35) / 20)
    audio *= min(1.0, 0.95 / np.abs(audio).max())  # no clipping
    return flac_of(audio, sample_rate)


def _trim(audio: np.ndarray, rate: int, keep_s: float = 0.1, floor_db: float = -45) -> np.ndarray:
    """Leaves just `keep_s` of silence before and after the speech."""
    loud = np.flatnonzero(np.abs(audio) > np.abs(audio).max() * 10 ** (floor_db / 20))
    return np.pad(audio[loud[0] : loud[-1] + 1], round(keep_s * rate))


def _resample(audio: np.ndarray, rate: int) -> np.ndarray:
    """From espeak-ng's sample rate to another, in float64: rounding must not reach bit 16."""
    return torchaudio.functional.resample(torch.from_numpy(audio), ESPEAK_RATE, rate).numpy()


def _noise(length: int, rng: random.Random) -> np.ndarray:
    """Noise of unit RMS whose spectrum is between white and pink."""
    white = np.random.default_rng(rng.getrandbits(64)).standard_normal(length)
    slope = rng.uniform(0, 0.5)  # 0.5 is pink: power falls with 1/f
    bins = np.arange(length // 2 + 1).clip(min=1)
    noise = np.fft.irfft(np.fft.rfft(white) / bins**slope, length)
    return noise / noise.std()


def _clear_other_corpus(data_folder: Path, options: dict[str, Any]) -> None:
    """Removes what was made with other options, and nothing else; refuses a folder that is not
    ours."""
    there = sorted(os.listdir(data_folder)) if data_folder.exists() else []
    there = [name for name in there if not name.startswith(".")]
    if there and OPTIONS_NAME not in there:
        raise DataError(
            f"{data_folder} holds what is not the mini corpus ({quoted(there[0])}): choose another "
            "data_folder, or for data of your own hparams/own.yaml"
        )
    splits = [data_folder / split for split in VOICES if split in there]
    if not splits:
        return
    found = read_record(data_folder / OPTIONS_NAME)
    if found == options:
        return
    made = _files_made(data_folder, found)
    (data_folder / SIZES_NAME).unlink(missing_ok=True)
    for split in splits:
        for path in split.glob("*/*/*"):
            if path.relative_to(data_folder).as_posix() in made:
                path.unlink()
        for folder in (*split.glob("*/*"), *split.glob("*"), split):
            with suppress(OSError):  # something else is in it, or it is a file
                folder.rmdir()


def _files_made(data_folder: Path, options: dict[str, Any]) -> set[str]:
    """Audio and transcripts of the corpus that is there, finished or not."""
    audio = {*read_record(data_folder / SIZES_NAME)}
    with suppress(KeyError, TypeError, ValueError):
        audio |= {u.path.as_posix() for u in plan_corpus(options["seed"], options["sizes"])}
    chapters = {PurePosixPath(path).parent for path in audio}
    return audio | {_transcript_of(chapter).as_posix() for chapter in chapters}


def _transcript_of(chapter: PurePath) -> PurePath:
    """The transcript of a chapter, by the chapter's folder inside the corpus."""
    return chapter / f"{'-'.join(chapter.parts[1:])}{TRANSCRIPT}"


def _missing(data_folder: Path, plan: list[Utterance]) -> list[Utterance]:
    """The utterances whose audio is not there, or has not the size it was written with."""
    written = read_record(data_folder / SIZES_NAME)

    def is_whole(utterance: Utterance) -> bool:
        found = size(data_folder / utterance.path)
        return found > 0 and found == written.get(utterance.path.as_posix(), found)

    return [utterance for utterance in plan if not is_whole(utterance)]


def _write_transcripts(data_folder: Path, plan: list[Utterance]) -> None:
    """Writes the ``.trans.txt`` of each chapter."""
    for chapter, utterances in groupby(plan, key=lambda utterance: utterance.folder):
        lines = [f"{utterance.id} {utterance.sentence.upper()}\n" for utterance in utterances]
        write_atomic(data_folder / _transcript_of(chapter), "".join(lines))
