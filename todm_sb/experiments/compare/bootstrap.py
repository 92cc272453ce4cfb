"""Paired bootstrap over utterances (Bisani & Ney 2004, "Bootstrap estimates for confidence
intervals in ASR performance evaluation").

Two systems transcribe the same utterances. Utterances are drawn with replacement, and both systems
judged on each draw: what makes an utterance hard for both cancels out.
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
        ours, theirs: (utterances,), errors of either system in each utterance.
        confidence: that the interval (of percentiles) is meant to have.
        n_resamples: draws of as many utterances.
        seed: of the draws.

    Raises:
        ValueError: if the two do not have the same utterances, or none.
    """
    errors = np.stack([np.asarray(ours), np.asarray(theirs)], axis=1).astype(np.int64)
    n = len(errors)
    if n == 0:
        raise ValueError("no utterances")
    rng = np.random.default_rng(seed)
    uniform = np.full(n, 1 / n)
    size = max(1, CHUNK // n)
    differences = np.concatenate(
        [
            _percent(rng.multinomial(n, uniform, min(size, n_resamples - start)) @ errors)
            for start in range(0, n_resamples, size)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(_percent(errors.sum(0, keepdims=True))[0]), float(low), float(high))


def _percent(errors: NDArray[np.int64]) -> NDArray[np.float64]:
    """(draws, 2) errors of both -> (draws,); systems without an error are equal."""
    ours, theirs = errors.T.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ours == theirs, 0.0, 100 * (ours / theirs - 1))
