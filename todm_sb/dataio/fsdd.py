"""Strings of real spoken digits, made from the Free Spoken Digit Dataset.

The dataset (Z. Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset) holds
single digits, ``recordings/{digit}_{speaker}_{index}.wav`` at 8 kHz, 50 of each digit by each
speaker. Here 3 to 7 recordings of one speaker are joined with short pauses into one utterance.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from todm_sb.dataio.manifest import Row, forget, is_current, mark_current, refuse_changed, write_csv
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.folders import files, files_digest
from todm_sb.utils.progress import bar

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
SAMPLE_RATE = 8000
NAME = r"\d_([^_]+)_\d+\.wav"
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
MIN_DIGITS, MAX_DIGITS = 3, 7
PAUSE_S = (0.05, 0.2)

# The dataset's own split is 0-4 for test and 5-49 for training; dev is cut from the latter.
INDICES = {"test": range(5), "dev": range(5, 8), "train": range(8, 50)}
ALL_INDICES = range(50)

# As held_out_speaker: the seed's speaker, so that a comparison over seeds goes round the voices.
BY_SEED = "by-seed"

# To be raised with any change here that makes other strings or other audio of the same seed.
VERSION = 1


@dataclass(frozen=True)
class Recording:
    """One spoken digit of the dataset.

    Args:
        digit: 0 to 9.
        speaker: first name, as in the file name.
        index: which of the speaker's recordings of this digit.
    """

    digit: int
    speaker: str
    index: int

    @property
    def name(self) -> str:
        """The dataset's file name."""
        return f"{self.digit}_{self.speaker}_{self.index}.wav"


@dataclass(frozen=True)
class DigitString:
    """An utterance to be made.

    Args:
        id: its name, unique over all splits.
        recordings: what it is made of, in order, all by one speaker.
    """

    id: str
    recordings: tuple[Recording, ...]

    @property
    def words(self) -> str:
        """The transcript."""
        return " ".join(WORDS[recording.digit] for recording in self.recordings)


def prepare_fsdd(
    data_folder: str | Path,
    save_folder: str | Path,
    seed: int = 1234,
    train_hours: float = 1.45,
    n_dev: int = 100,
    n_test: int = 400,
    held_out_speaker: str | None = None,
    skip_prep: bool = False,
    num_threads: int = 4,
) -> None:
    """Writes ``{train,dev,test}.csv`` and, under ``audio/<split>/``, their FLAC files.

    Nothing is done over again for CSVs of the same options, where the recordings and what was made
    of them are files of the same names, sizes and times of change.

    No recording is in two splits. Within a split all recordings of a speaker are used equally
    often, in train but for the last round; speakers have equally many strings (give or take one).

    Args:
        data_folder: clone of the dataset, or its ``recordings`` folder.
        save_folder: where CSVs and audio go.
        seed: chooses the strings and their pauses.
        train_hours: length of the training set; recordings are reused in new strings for it.
        n_dev: strings of the dev set.
        n_test: strings of the test set.
        held_out_speaker: if given, train and dev are without this speaker, and the test strings
            are made of all of this speaker's recordings and of no other's; ``by-seed`` takes the
            speaker at `seed` in alphabetical order, counted from 0, round and round.
        skip_prep: if True, nothing is done.
        num_threads: strings worked on at a time (no bearing on the result).

    Raises:
        DataError: if the dataset, a recording or the speaker is not there, if a file cannot be
            read, if `n_dev` or `n_test` does not suit an equal use of the recordings, or if a CSV
            was changed by somebody else.
    """
    if skip_prep:
        return
    recordings_folder = find_recordings(data_folder)
    save_folder = Path(save_folder).resolve()
    options = {
        "data_folder": str(recordings_folder),
        "recordings": files_digest(files(recordings_folder, ".wav"), num_threads),
        "seed": seed,
        "train_hours": train_hours,
        "n_dev": n_dev,
        "n_test": n_test,
        "held_out_speaker": held_out_speaker,
        "version": VERSION,
    }
    csvs = {split: save_folder / f"{split}.csv" for split in INDICES}

    def made_from(split: str) -> dict[str, Any]:
        folder = save_folder / "audio" / split
        made = files(folder, ".flac") if folder.is_dir() else []
        return {**options, "audio": files_digest(made, num_threads)}

    if all(is_current(path, made_from(split)) for split, path in csvs.items()):
        return
    for path in csvs.values():
        refuse_changed(path)

    speakers = find_speakers(recordings_folder)
    if held_out_speaker == BY_SEED:
        held_out_speaker = speakers[seed % len(speakers)]
    if held_out_speaker is not None and held_out_speaker not in speakers:
        raise DataError(
            f"no speaker '{held_out_speaker}' in {recordings_folder}: "
            f"held_out_speaker is {BY_SEED} or one of {', '.join(speakers)}"
        )
    audio = read_recordings(recordings_folder, speakers, num_threads)
    plan = {
        "train": plan_train(_pools("train", speakers, held_out_speaker), audio, train_hours, seed),
        "dev": plan_equal_use("dev", _pools("dev", speakers, held_out_speaker), n_dev, seed),
        "test": plan_equal_use("test", _pools("test", speakers, held_out_speaker), n_test, seed),
    }

    # An old CSV must not stay beside new audio of the same names, should this run break off.
    for path in csvs.values():
        forget(path)
        path.unlink(missing_ok=True)
    for split, strings in plan.items():
        write = partial(_write, folder=save_folder / "audio" / split, audio=audio, seed=seed)
        with ThreadPoolExecutor(num_threads) as pool:
            work = pool.map(write, strings)
            rows = list(bar(work, total=len(strings), desc=f"FSDD {split}", unit="utt"))
        write_csv(csvs[split], rows)
        mark_current(csvs[split], made_from(split))


def find_recordings(data_folder: str | Path) -> Path:
    """Finds the folder of the WAV files.

    Args:
        data_folder: clone of the dataset, or its ``recordings`` folder.

    Returns:
        The ``recordings`` folder as an absolute path.

    Raises:
        DataError: if there is none.
    """
    data_folder = Path(data_folder).resolve()
    for folder in (data_folder / "recordings", data_folder):
        if folder.is_dir() and any(re.fullmatch(NAME, path.name) for path in files(folder, ".wav")):
            return folder
    raise DataError(f"no recordings of spoken digits in {data_folder}: git clone {SOURCE}")


def find_speakers(recordings_folder: Path) -> list[str]:
    """Lists the speakers, making sure that each has all 50 recordings of each digit.

    Args:
        recordings_folder: the folder of the WAV files.

    Returns:
        Names in alphabetical order.

    Raises:
        DataError: if recordings are missing.
    """
    names = {path.name for path in files(recordings_folder, ".wav")}
    matches = (re.fullmatch(NAME, name) for name in names)
    speakers = sorted({match[1] for match in matches if match})
    wanted = [r.name for speaker in speakers for r in _pool(speaker, ALL_INDICES)]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} recordings are missing from {recordings_folder}, "
            f"{missing[0]} for one: clone {SOURCE} afresh"
        )
    return speakers


def read_recordings(
    recordings_folder: Path, speakers: Sequence[str], num_threads: int = 4
) -> dict[Recording, np.ndarray]:
    """Reads all recordings of some speakers; the whole dataset is some 70 MB.

    Args:
        recordings_folder: the folder of the WAV files.
        speakers: whose recordings.
        num_threads: files read at a time.

    Returns:
        Samples between -1 and 1, float64, by recording.

    Raises:
        DataError: if a file cannot be read or is not speech at 8 kHz in one channel.
    """

    def read(recording: Recording) -> np.ndarray:
        path = recordings_folder / recording.name
        mend = f"clone {SOURCE} afresh"
        try:
            samples, rate = soundfile.read(path)
        except (OSError, soundfile.SoundFileError) as error:
            raise DataError(f"cannot read {path} ({error}): {mend}") from error
        if rate != SAMPLE_RATE or samples.ndim != 1 or not len(samples):
            raise DataError(f"{path} is not a mono recording at {SAMPLE_RATE} Hz: {mend}")
        return samples

    wanted = [recording for speaker in speakers for recording in _pool(speaker, ALL_INDICES)]
    with ThreadPoolExecutor(num_threads) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


def plan_train(
    pools: dict[str, list[Recording]],
    audio: dict[Recording, np.ndarray],
    hours: float,
    seed: int,
) -> list[DigitString]:
    """Draws strings of random length, speaker by speaker in turn, until they last long enough.

    Args:
        pools: recordings to draw from, by speaker.
        audio: the samples of each.
        hours: length to reach, pauses included.
        seed: chooses the strings.

    Returns:
        The strings.
    """
    rng = random.Random(f"train {seed}")
    streams = {speaker: _rounds(pool, rng) for speaker, pool in pools.items()}
    pause = sum(PAUSE_S) / 2
    strings: list[DigitString] = []
    seconds = 0.0
    while seconds < hours * 3600:
        for speaker, stream in streams.items():
            length = rng.randint(MIN_DIGITS, MAX_DIGITS)
            recordings = tuple(next(stream) for _ in range(length))
            strings.append(DigitString(f"{speaker}-train-{len(strings):05d}", recordings))
            seconds += sum(len(audio[r]) for r in recordings) / SAMPLE_RATE + (length + 1) * pause
    return strings


def plan_equal_use(
    split: str, pools: dict[str, list[Recording]], n_strings: int, seed: int
) -> list[DigitString]:
    """Draws a given number of strings in which every recording occurs equally often.

    Args:
        split: name of the split.
        pools: recordings to draw from, equally many by speaker.
        n_strings: how many strings, shared out evenly among the speakers.
        seed: chooses the strings.

    Returns:
        The strings.

    Raises:
        DataError: if strings of the allowed lengths cannot hold each recording equally often.
    """
    rng = random.Random(f"{split} {seed}")
    pool_size = len(next(iter(pools.values())))
    mean = (MIN_DIGITS + MAX_DIGITS) / 2
    uses = max(1, round(mean * n_strings / len(pools) / pool_size))
    strings: list[DigitString] = []
    for position, (speaker, pool) in enumerate(pools.items()):
        share = n_strings // len(pools) + (position < n_strings % len(pools))
        if not MIN_DIGITS * share <= uses * pool_size <= MAX_DIGITS * share:
            least = -(-pool_size // MAX_DIGITS) * len(pools)
            raise DataError(
                f"n_{split} is {n_strings}, too few to use each of the {pool_size} {split} "
                f"recordings of {len(pools)} speakers equally often: make it {least} or more"
            )
        stream = _rounds(pool, rng)
        for length in _lengths(share, uses * pool_size, rng):
            recordings = tuple(next(stream) for _ in range(length))
            strings.append(DigitString(f"{speaker}-{split}-{len(strings):05d}", recordings))
    return strings


def _pools(split: str, speakers: Sequence[str], held_out: str | None) -> dict[str, list[Recording]]:
    """The recordings a split may draw from, by speaker."""
    if split == "test" and held_out is not None:
        return {held_out: _pool(held_out, ALL_INDICES)}
    return {speaker: _pool(speaker, INDICES[split]) for speaker in speakers if speaker != held_out}


def _pool(speaker: str, indices: Sequence[int]) -> list[Recording]:
    """A speaker's recordings of all digits with the given indices."""
    return [Recording(digit, speaker, index) for digit in range(10) for index in indices]


def _rounds(pool: Sequence[Recording], rng: random.Random) -> Iterator[Recording]:
    """Draws without end, a round of all recordings after the other, each in an order of its own.

    Near the seam of two rounds the order is such that no string holds a recording twice.
    """
    last: list[Recording] = []
    while True:
        order = rng.sample(pool, len(pool))
        while set(order[: MAX_DIGITS - 1]) & set(last[1 - MAX_DIGITS :]):
            order = rng.sample(pool, len(pool))
        yield from order
        last = order


def _lengths(count: int, total: int, rng: random.Random) -> list[int]:
    """So many random string lengths with the given sum."""
    lengths = [rng.randint(MIN_DIGITS, MAX_DIGITS) for _ in range(count)]
    while (gap := total - sum(lengths)) != 0:
        position = rng.randrange(count)
        changed = lengths[position] + (1 if gap > 0 else -1)
        if MIN_DIGITS <= changed <= MAX_DIGITS:
            lengths[position] = changed
    return lengths


def _write(string: DigitString, folder: Path, audio: dict[Recording, np.ndarray], seed: int) -> Row:
    """Joins a string's recordings and writes the FLAC file."""
    # The pauses hang on the string alone, so that the order of writing does not matter.
    rng = random.Random(f"{string.id} {seed}")
    noise = np.random.default_rng(rng.getrandbits(64))
    parts = [audio[recording] for recording in string.recordings]
    floor = _noise_floor(np.concatenate(parts))

    def pause() -> np.ndarray:
        # Room noise as loud as in the recordings: digital silence would mark the digits' ends.
        return floor * noise.standard_normal(round(rng.uniform(*PAUSE_S) * SAMPLE_RATE))

    samples = np.concatenate([pause(), *(piece for part in parts for piece in (part, pause()))])
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    path = folder / f"{string.id}.flac"
    write_atomic(path, file.getvalue())
    speaker = string.recordings[0].speaker
    return Row(string.id, len(samples) / SAMPLE_RATE, str(path), speaker, string.words)


def _noise_floor(samples: np.ndarray, frame_s: float = 0.01) -> float:
    """RMS of the quietest frame, but no less than the last of 16 bits."""
    frame = round(frame_s * SAMPLE_RATE)
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    level = np.sqrt((frames**2).mean(axis=1))
    # Where all frames are loud (no pause was left in the recordings), 26 dB below the speech.
    return max(min(level.min(initial=np.inf), 0.05 * samples.std()), 2**-15)
