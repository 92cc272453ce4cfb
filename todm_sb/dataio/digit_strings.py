"""Which recordings of digits are joined to which utterances.

No recording is in two splits. Within a split all recordings of a speaker are used equally often, in
train but for the last round; speakers have equally many strings (give or take one).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from todm_sb.utils.errors import DataError

SAMPLE_RATE = 8000
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
MIN_DIGITS, MAX_DIGITS = 3, 7
PAUSE_S = (0.05, 0.2)

# The dataset's own split is 0-4 for test and 5-49 for training; dev is cut from the latter.
INDICES = {"test": range(5), "dev": range(5, 8), "train": range(8, 50)}
ALL_INDICES = range(50)


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


def plan_splits(
    speakers: Sequence[str],
    held_out: str | None,
    audio: dict[Recording, np.ndarray],
    train_hours: float,
    n_dev: int,
    n_test: int,
    seed: int,
) -> dict[str, list[DigitString]]:
    """The strings of each split; arguments as of :func:`todm_sb.dataio.fsdd.prepare_fsdd`.

    Args:
        speakers: whose recordings there are.
        held_out: the speaker that test alone is of, if any.
        audio: samples of each recording.
        train_hours, n_dev, n_test: sizes of the splits.
        seed: chooses the strings.

    Raises:
        DataError: if a size does not suit an equal use of the recordings.
    """
    pools = {split: pools_of(split, speakers, held_out) for split in INDICES}
    return {
        "train": plan_train(pools["train"], audio, train_hours, seed),
        "dev": plan_equal_use("dev", pools["dev"], n_dev, seed),
        "test": plan_equal_use("test", pools["test"], n_test, seed),
    }


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


def pools_of(
    split: str, speakers: Sequence[str], held_out: str | None
) -> dict[str, list[Recording]]:
    """The recordings a split may draw from, by speaker."""
    if split == "test" and held_out is not None:
        return {held_out: pool_of(held_out, ALL_INDICES)}
    return {
        speaker: pool_of(speaker, INDICES[split]) for speaker in speakers if speaker != held_out
    }


def pool_of(speaker: str, indices: Sequence[int]) -> list[Recording]:
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
