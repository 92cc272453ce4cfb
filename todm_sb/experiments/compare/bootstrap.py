"""Paired bootstrap over runs and speakers (Bisani & Ney 2004, "Bootstrap estimates for confidence
intervals in ASR performance evaluation"; both ways at once: Owen 2007, "The pigeonhole bootstrap",
arXiv:0712.1111).

Two systems transcribe the same utterances. Speakers are drawn with replacement, and both systems
judged on each draw: what makes a speaker hard for both cancels out. Utterances of one speaker are
alike, so that drawn by themselves they would seem to tell more than they do. Trainings of other
seeds are drawn as well, independently: a speaker counts in all runs as often as it was drawn, a run
for all speakers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Counts drawn at a time, to bound memory.
CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate in percent and the bounds of its interval.

    Args:
        value, low, high: infinite where the other system makes no error at all.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain types, for JSON, which knows no infinity."""
        return {key: x if np.isfinite(x) else None for key, x in asdict(self).items()}


def relative_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """How much higher our error rate is, relative to theirs, in percent; negative if lower.

    Args:
        ours, theirs: (units,) or (runs, units), errors of either system in each unit: a speaker, or
            an utterance. A unit that a run was not tested on has none.
        confidence: that the interval (of percentiles) is meant to have.
        n_resamples: draws, of as many units and of as many runs.
        seed: of the draws.

    Raises:
        ValueError: if the two do not have the same runs and units, or none.
    """
    # (runs, units, 2)
    errors = np.stack([np.atleast_2d(ours), np.atleast_2d(theirs)], axis=2).astype(np.int64)
    n_runs, n = errors.shape[:2]
    if errors.size == 0:
        raise ValueError("no utterances")
    rng = np.random.default_rng(seed)
    size = max(1, CHUNK // (n + 2 * n_runs))

    def draw(n_draws: int) -> NDArray[np.float64]:
        of_unit, of_run = (rng.multinomial(k, np.full(k, 1 / k), n_draws) for k in (n, n_runs))
        drawn = of_unit @ errors  # (runs, draws, 2)
        return _percent(np.einsum("dr,rds->ds", of_run, drawn))

    starts = range(0, n_resamples, size)
    differences = np.concatenate([draw(min(size, n_resamples - start)) for start in starts])
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(_percent(errors.sum((0, 1))[None])[0]), float(low), float(high))


def _percent(errors: NDArray[np.int64]) -> NDArray[np.float64]:
    """(draws, 2) errors of both -> (draws,); systems without an error are equal."""
    ours, theirs = errors.T.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ours == theirs, 0.0, 100 * (ours / theirs - 1))
