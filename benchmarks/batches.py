"""Padding and batches of an epoch on durations like those of mini LibriSpeech and of 960 h; peer
SpeechBrain's DynamicBatchSampler with 20 lognormal buckets.

    python benchmarks/batches.py
"""

from __future__ import annotations

import time

import numpy as np
from measure import Row, print_table, time_in_turn
from speechbrain.dataio.sampler import DynamicBatchSampler

from todm_sb.dataio.batches import DurationBatches

# Of train-clean-5 of mini LibriSpeech (OpenSLR 31), 1,519 utterances: durations in seconds at 0,
# 2.5, 5, ..., 100 %, from the headers of its files.
QUANTILES = [
    *(1.87, 3.04, 4.07, 4.98, 6.32, 7.46, 8.63, 9.31, 10.0, 10.84, 11.34, 11.92, 12.26, 12.55),
    *(12.73, 13.05, 13.22, 13.42, 13.63, 13.78, 13.92, 14.07, 14.2, 14.34, 14.49, 14.6, 14.7),
    *(14.82, 14.93, 15.06, 15.17, 15.27, 15.37, 15.45, 15.53, 15.66, 15.78, 15.86, 16.05, 16.31),
    17.27,
]
BOUNDS = 100, 300, 1000, 3000
SEED = 1234


def train_clean_5() -> np.ndarray:
    """1,519 durations in seconds with the quantiles of train-clean-5, in random order."""
    return _like_train_clean_5(np.random.default_rng(0).permutation(1519) / 1518)


def librispeech_960() -> np.ndarray:
    """As many durations as LibriSpeech has utterances to train on, made up: mean 12.3 s, most
    between 10 and 17 s, up to 24.5 s."""
    rng = np.random.default_rng(960)
    seconds = 0.975 * _like_train_clean_5(rng.random(281_241))
    long = rng.random(len(seconds)) < 0.002
    seconds[long] = rng.uniform(17.0, 24.5, long.sum())
    return seconds


def _like_train_clean_5(shares: np.ndarray) -> np.ndarray:
    return np.interp(shares, np.linspace(0, 1, len(QUANTILES)), QUANTILES)


def padded(durations: np.ndarray, batches: list[list[int]]) -> np.ndarray:
    """Seconds of each batch, padding included."""
    sizes = np.array([len(batch) for batch in batches])
    longest = np.maximum.reduceat(durations[np.concatenate(batches)], sizes.cumsum() - sizes)
    return sizes * longest


def peer_of(durations: np.ndarray, max_seconds: float) -> DynamicBatchSampler:
    """SpeechBrain's sampler; all that it asks of the data is how many there are."""
    return DynamicBatchSampler(
        range(len(durations)),
        max_seconds,
        num_buckets=20,
        lengths_list=durations.tolist(),
        seed=SEED,
    )


def rows_of(name: str, durations: np.ndarray, max_seconds: float) -> list[Row]:
    """Padding and number of batches of the first epoch."""
    shapes = f"{name}, {max_seconds} s"
    samplers = DurationBatches(durations, max_seconds, SEED), peer_of(durations, max_seconds)
    for sampler in samplers:
        sampler.set_epoch(1)
    batches = [list(sampler) for sampler in samplers]
    audio = durations.sum()
    padding = [100 * (padded(durations, x).sum() / audio - 1) for x in batches]
    return [
        Row("padding, of the audio", shapes, *padding, "%", 1.0),
        Row("batches an epoch", shapes, *map(len, batches), "batches", 1.0),
    ]


def main() -> None:
    """Print the table."""
    corpora = {"train-clean-5": train_clean_5(), "960 h": librispeech_960()}
    rows = [
        row
        for name, durations in corpora.items()
        for bound in BOUNDS
        for row in rows_of(name, durations, bound)
    ]
    durations = corpora["960 h"]
    sampler, peer = DurationBatches(durations, 300, SEED), peer_of(durations, 300)
    times = time_in_turn(
        lambda: sampler.set_epoch(1),
        lambda: peer.set_epoch(1),
        repeats=3,
        warmup=1,
        clock=time.thread_time,
    )
    seconds = [x.median for x in times]
    rows.append(Row("making them, processor time", "960 h, 300 s", *seconds, "s", 1.0))
    print_table(rows)


if __name__ == "__main__":
    main()
