"""Cutting long audio, against all cuts that there are, and words, formats and subtitles."""

import itertools

import numpy as np
import pytest

from todm_sb.inference.segments import LENGTH, _cheapest, segments_of

RATE = 1000


def speech(rng, seconds_and_levels):
    """Noise of these levels."""
    return np.concatenate(
        [level * rng.standard_normal(round(RATE * t)) for t, level in seconds_and_levels]
    ).astype(np.float32)


@pytest.mark.parametrize("seconds", [0, 0.5, 3, 3.05, 17.3, 60])
@pytest.mark.parametrize("silent", [False, True])
def test_parts_follow_each_other_from_end_to_end_and_none_is_too_long(seconds, silent):
    samples = speech(np.random.default_rng(0), [(seconds, 0.0 if silent else 0.1)])
    parts = segments_of(samples, RATE, 3.0)
    assert [part[0] for part in parts] == [0, *(part[1] for part in parts[:-1])]
    assert parts[-1][1] == len(samples)
    assert all(0 < end - begin <= 3 * RATE for begin, end in parts) or not seconds
    assert (len(parts) == 1) == (seconds <= 3)


def test_cuts_are_in_the_pauses_however_loud_these_are():
    # Twice, the second time with a noise that is louder than the first one's speech.
    sentences = [(2.0, 0.1), (0.4, 0.001), (2.5, 0.1), (0.4, 0.001), (1.5, 0.1), (0.4, 0.001)]
    louder = [(seconds, 10 * level + 0.2) for seconds, level in sentences]
    samples = speech(np.random.default_rng(0), sentences + louder)
    middles = np.cumsum([seconds for seconds, _ in sentences + louder])[1:-1:2] - 0.2
    cuts = [end / RATE for _, end in segments_of(samples, RATE, 3.0)[:-1]]
    assert all(np.abs(middles - cut).min() < 0.2 for cut in cuts)
    assert len(cuts) == len(middles)


@pytest.mark.parametrize("seed", range(5))
def test_the_cuts_are_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    places = [0, *np.cumsum(rng.integers(1, 4, size=10)).tolist()]
    costs, most = rng.uniform(0, 20, size=len(places)), 7

    def cost(cuts):
        lengths = np.diff(cuts)
        if lengths.max() > most:
            return np.inf
        inner = [costs[places.index(cut)] for cut in cuts[1:]]
        return sum(inner) + LENGTH * np.square(lengths / most).sum()

    all_cuts = [
        [0, *inner, places[-1]]
        for n in range(len(places) - 1)
        for inner in itertools.combinations(places[1:-1], n)
    ]
    assert _cheapest(places, list(costs), most) == min(all_cuts, key=cost)


def test_a_limit_below_a_second_is_refused():
    with pytest.raises(ValueError, match=r"at least 1 s, not 0\.5 s"):
        segments_of(np.zeros(10, np.float32), RATE, 0.5)
