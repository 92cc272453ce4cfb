"""Strings of real spoken digits, made from the Free Spoken Digit Dataset.

The dataset (Z. Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset) holds
single digits, ``recordings/{digit}_{speaker}_{index}.wav`` at 8 kHz, 50 of each digit by each
speaker. Here 3 to 7 recordings of one speaker are joined with short pauses into one utterance.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from todm_sb.dataio.audio import flac_of
from todm_sb.dataio.digit_strings import (
    ALL_INDICES,
    INDICES,
    PAUSE_S,
    SAMPLE_RATE,
    DigitString,
    Recording,
    plan_splits,
    pool_of,
)
from todm_sb.dataio.manifest import Row, forget, is_current, mark_current, refuse_changed, write_csv
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.folders import files, files_digest
from todm_sb.utils.progress import bar

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
NAME = r"\d_([^_]+)_\d+\.wav"

# As held_out_speaker: the seed's speaker, so that a comparison over seeds goes round the voices.
BY_SEED = "by-seed"

# To be raised with any change here that makes other strings or other audio of the same seed.
VERSION = 1


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

    :mod:`todm_sb.dataio.digit_strings` says which recordings go together.

    Args:
        data_folder: clone of the dataset, or its ``recordings`` folder.
        save_folder: where CSVs and audio go.
        seed: chooses the strings and their pauses.
        train_hours: length of the training set; recordings are reused in new strings for it.
        n_dev, n_test: strings of the dev set and of the test set.
        held_out_speaker: if given, train and dev are without this speaker, and the test strings
            are made of all of this speaker's recordings and of no other's; ``by-seed`` takes the
            speaker at `seed` in alphabetical order, counted from 0, round and round.
        skip_prep: if True, nothing is done.
        num_threads: strings worked on at a time (no bearing on the result).

    Raises:
        DataError: if the dataset, a recording or the speaker is not there, a file cannot be read, a
            size does not suit an equal use of recordings, or somebody else changed a CSV.
    """
    if skip_prep:
        return
    recordings_folder = find_recordings(data_folder)
    options = {
        "data_folder": str(recordings_folder),
        "recordings": files_digest(files(recordings_folder, ".wav"), num_threads),
        "seed": seed,
        "train_hours": train_hours,
        **{"n_dev": n_dev, "n_test": n_test, "held_out_speaker": held_out_speaker},
        "version": VERSION,
    }
    made_from = partial(_made_from, options, num_threads)
    csvs = [Path(save_folder).resolve() / f"{split}.csv" for split in INDICES]
    if all(is_current(path, made_from(path)) for path in csvs):
        return
    for path in csvs:
        refuse_changed(path)
    speakers = find_speakers(recordings_folder)
    held_out = _held_out(held_out_speaker, speakers, seed, recordings_folder)
    audio = read_recordings(recordings_folder, speakers, num_threads)
    plan = plan_splits(speakers, held_out, audio, train_hours, n_dev, n_test, seed)
    _remove(csvs)
    write = partial(_write, audio=audio, seed=seed)
    for path in csvs:
        write_csv(path, _written(path, plan[path.stem], write, num_threads))
        mark_current(path, made_from(path))


def _remove(csvs: Sequence[Path]) -> None:
    """An old CSV must not stay beside new audio of the same names, should this run break off."""
    for path in csvs:
        forget(path)
        path.unlink(missing_ok=True)


def _audio_folder(csv: Path) -> Path:
    """Where the audio of a split's CSV is."""
    return csv.parent / "audio" / csv.stem


def _made_from(options: dict[str, Any], num_threads: int, csv: Path) -> dict[str, Any]:
    """What the CSV of a split comes from: the options, and the audio files there are."""
    folder = _audio_folder(csv)
    made = files(folder, ".flac") if folder.is_dir() else []
    return {**options, "audio": files_digest(made, num_threads)}


def _written(
    csv: Path, strings: list[DigitString], write: Callable[..., Row], num_threads: int
) -> list[Row]:
    """The rows of a split's strings, whose audio is written."""
    with ThreadPoolExecutor(num_threads) as pool:
        work = pool.map(partial(write, folder=_audio_folder(csv)), strings)
        return list(bar(work, total=len(strings), desc=f"FSDD {csv.stem}", unit="utt"))


def _held_out(
    speaker: str | None, speakers: Sequence[str], seed: int, recordings_folder: Path
) -> str | None:
    """Who is held out, of the speakers that are there; None for nobody."""
    if speaker == BY_SEED:
        return speakers[seed % len(speakers)]
    if speaker is not None and speaker not in speakers:
        raise DataError(
            f"no speaker '{speaker}' in {recordings_folder}: "
            f"held_out_speaker is {BY_SEED} or one of {', '.join(speakers)}"
        )
    return speaker


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
    wanted = [r.name for speaker in speakers for r in pool_of(speaker, ALL_INDICES)]
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

    wanted = [recording for speaker in speakers for recording in pool_of(speaker, ALL_INDICES)]
    with ThreadPoolExecutor(num_threads) as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


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
    path = folder / f"{string.id}.flac"
    write_atomic(path, flac_of(samples.clip(-1, 1), SAMPLE_RATE))
    speaker = string.recordings[0].speaker
    return Row(string.id, len(samples) / SAMPLE_RATE, str(path), speaker, string.words)


def _noise_floor(samples: np.ndarray, frame_s: float = 0.01) -> float:
    """RMS of the quietest frame, but no less than the last of 16 bits."""
    frame = round(frame_s * SAMPLE_RATE)
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    level = np.sqrt((frames**2).mean(axis=1))
    # Where all frames are loud (no pause was left in the recordings), 26 dB below the speech.
    return max(min(level.min(initial=np.inf), 0.05 * samples.std()), 2**-15)
