"""The paired bootstrap against all resamples of a few utterances, and against the delta method."""

import itertools
import math

import numpy as np
import pytest

from todm_sb.experiments.compare.bootstrap import relative_difference


def every_resample(ours, theirs):
    """The difference under each of the n^n equally likely draws."""
    found = []
    for draw in itertools.product(range(len(ours)), repeat=len(ours)):
        a, b = sum(ours[i] for i in draw), sum(theirs[i] for i in draw)
        found.append(round(100 * (a - b) / b, 9))
    return sorted(found)


def quantile(values, part):
    """The smallest value that at least this part of the values does not exceed."""
    return values[math.ceil(part * len(values)) - 1]


@pytest.mark.parametrize("confidence", [0.9, 0.5])
def test_the_interval_is_that_of_all_resamples(confidence):
    ours, theirs = [3, 0, 5, 1, 2], [2, 4, 5, 3, 1]
    exact = every_resample(ours, theirs)
    found = relative_difference(ours, theirs, confidence, n_resamples=200_000)
    tail = (1 - confidence) / 2
    assert found.value == pytest.approx(100 * (11 / 15 - 1))
    # Between two draws that are far apart in rank the values differ little.
    for bound, part in ((found.low, tail), (found.high, 1 - tail)):
        assert quantile(exact, part - 0.005) <= round(bound, 9) <= quantile(exact, part + 0.005)


def test_many_utterances_give_the_interval_of_the_delta_method():
    rng = np.random.default_rng(1)
    theirs = rng.poisson(2.0, 4000)
    ours = np.maximum(theirs - rng.integers(0, 2, 4000), 0) + rng.poisson(0.1, 4000)
    found = relative_difference(ours, theirs)
    ratio = ours.sum() / theirs.sum()
    # Of a ratio of sums: the variance of a - r b, over n mean(b)^2.
    sigma = np.std(ours - ratio * theirs) / (math.sqrt(4000) * theirs.mean())
    assert found.low == pytest.approx(100 * (ratio - 1 - 1.96 * sigma), abs=0.2)
    assert found.high == pytest.approx(100 * (ratio - 1 + 1.96 * sigma), abs=0.2)


def test_runs_and_speakers_are_drawn_independently():
    """Every draw of two runs and of three speakers, all equally likely."""
    ours, theirs = [[3, 0, 5], [1, 2, 2]], [[2, 4, 5], [3, 1, 2]]
    exact = []
    for runs in itertools.product(range(2), repeat=2):
        for speakers in itertools.product(range(3), repeat=3):
            a, b = (sum(x[r][s] for r in runs for s in speakers) for x in (ours, theirs))
            exact.append(round(100 * (a - b) / b, 9))
    exact.sort()
    found = relative_difference(ours, theirs, 0.8, n_resamples=200_000)
    assert found.value == pytest.approx(100 * (13 / 17 - 1))
    for bound, part in ((found.low, 0.1), (found.high, 0.9)):
        assert quantile(exact, part - 0.01) <= round(bound, 9) <= quantile(exact, part + 0.01)


def test_one_run_is_the_same_with_or_without_its_dimension():
    ours, theirs = [3, 0, 5, 1, 2], [2, 4, 5, 3, 1]
    assert relative_difference([ours], [theirs]) == relative_difference(ours, theirs)


def test_pairing_makes_the_interval_of_equal_systems_a_point():
    errors = [4, 0, 1, 7, 2]
    found = relative_difference(errors, errors)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_same_seed_draws_the_same_utterances():
    ours, theirs = [3, 0, 5, 1, 2], [2, 4, 5, 3, 1]
    assert relative_difference(ours, theirs) == relative_difference(ours, theirs)
    assert relative_difference(ours, theirs, n_resamples=50, seed=1) != relative_difference(
        ours, theirs, n_resamples=50, seed=2
    )


def test_a_system_without_errors_has_no_finite_relative_difference():
    assert relative_difference([1, 2], [0, 0]).to_dict() == {
        "value": None,
        "low": None,
        "high": None,
    }
    assert relative_difference([0, 0], [0, 0]).value == 0


def test_no_utterances_are_an_error():
    with pytest.raises(ValueError, match="no utterances"):
        relative_difference([], [])
