"""Cuts long audio where it is quiet, so that no part is longer than what a network is used to.

A network that was trained on utterances of some seconds loses words, without a word, in minutes of
speech. Every sample stays in one part: what is quiet need not be silence.

The cuts are those of the least cost, found by dynamic programming. A cut costs :data:`CUT` decibels
and the level of sound around it above the quietest place nearby. A part costs :data:`LENGTH`
decibels times the square of its length relative to the longest: few utterances of training had that
length.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

# Seconds between places where a cut is thought of, of which each is the quietest in its block.
BLOCK = 0.1
# Seconds around a cut whose level counts: longer than the closure of a plosive.
WINDOW = 0.2
# Seconds of which a level is taken at once.
STEP = 0.01
# Decibels that each cut costs, so that a pause has one.
CUT = 2.0
# Decibels that a part costs that is as long as a part may be.
LENGTH = 15.0
# Below full scale; digital silence is no quieter.
QUIETEST = -80.0
# Seconds; a part has to hold several blocks.
SHORTEST_LIMIT = 1.0


def segments_of(
    samples: NDArray[np.float32], sample_rate: int, longest: float
) -> list[tuple[int, int]]:
    """Where the parts of some audio begin and end.

    Args:
        samples: (n,).
        sample_rate: in Hz.
        longest: seconds of a part at most, from :data:`SHORTEST_LIMIT` on.

    Returns:
        (begin, end) of each part in samples; they follow each other from 0 to n.

    Raises:
        ValueError: if ``longest`` is too short.
    """
    if longest < SHORTEST_LIMIT:
        raise ValueError(f"longest must be at least {SHORTEST_LIMIT:g} s, not {longest:g} s")
    most = int(longest * sample_rate)
    if len(samples) <= most:
        return [(0, len(samples))]
    places, costs = _places(samples, sample_rate, longest)
    cuts = _cheapest([0, *places, len(samples)], [0.0, *costs, 0.0], most)
    return list(itertools.pairwise(cuts))


def _places(
    samples: NDArray[np.float32], sample_rate: int, longest: float
) -> tuple[list[int], list[float]]:
    """The quietest place of each block, and what a cut there costs."""
    step, block = max(1, round(STEP * sample_rate)), round(BLOCK / STEP)
    n_blocks = len(samples) // (step * block)
    frames = samples[: n_blocks * block * step].reshape(-1, step)
    power = np.square(frames).mean(1, dtype=np.float64)
    width = round(WINDOW / STEP)
    smooth = np.convolve(power, np.full(width, 1 / width), mode="same")
    level = np.maximum(10 * np.log10(smooth + 1e-12), QUIETEST).reshape(n_blocks, block)
    lowest = level.min(1)
    reach = round(longest / BLOCK)
    around = np.pad(lowest, reach, mode="edge")
    nearby = np.lib.stride_tricks.sliding_window_view(around, 2 * reach + 1).min(1)
    at = level.argmin(1) + np.arange(n_blocks) * block
    # In the middle of the step: never at the beginning.
    return (at * step + step // 2).tolist(), (lowest - nearby + CUT).tolist()


def _cheapest(places: list[int], costs: list[float], most: int) -> list[int]:
    """The cheapest of these places, the first and the last among them, that are never more than
    ``most`` samples apart."""
    at = np.array(places)
    best = np.zeros(len(at))
    before = np.zeros(len(at), dtype=np.int64)
    first = np.searchsorted(at, at - most)
    for i in range(1, len(at)):
        begin = int(first[i])
        totals = best[begin:i] + LENGTH * np.square((at[i] - at[begin:i]) / most)
        before[i] = begin + int(totals.argmin())
        best[i] = totals.min() + costs[i]
    found = [len(at) - 1]
    while found[-1]:
        found.append(int(before[found[-1]]))
    return [places[i] for i in reversed(found)]
