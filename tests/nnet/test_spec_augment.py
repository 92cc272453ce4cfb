"""SpecAugment masks what its definition says, utterance by utterance."""

import math

import pytest
import torch

from todm_sb.nnet.spec_augment import SpecAugment
from todm_sb.utils.errors import ConfigError

LENGTHS = [60, 41, 7, 1, 0]
OPTIONS = [
    {},
    {"time_share": 0.5, "time_width": (2, 9), "time_count": (0, 4), "freq_count": (0, 3)},
    {"time_share": 1.0, "time_width": (15, 24), "time_count": (2, 5), "freq_width": (25, 34)},
    {"time_share": 0.0, "freq_count": (0, 0)},
    {"time_count": (0, 0), "freq_width": (3, 3)},
    {"time_warp": 5},
    {"time_warp": 28, "time_share": 0.3, "time_width": (0, 5)},
]


def pick(u, low, high):
    return low + math.floor(u * (high - low + 1))


def masked_positions(u, size, count, width, share):
    """Of one utterance, by its draws ``u``."""
    n, positions = pick(u[0], *count), set()
    n = min(n, math.ceil(share / max(width[1], 1)))
    widest = min(width[1], size, share // max(n, 1))
    for i in range(n):
        w = pick(u[1 + i], min(width[0], widest), widest)
        start = pick(u[1 + count[1] + i], 0, size - w)
        positions |= set(range(start, start + w))
    return positions


def warped(frames, u, most):
    """Rows of one utterance, moved piece by piece."""
    last = len(frames) - 1
    if len(frames) < 2 * most + 3:
        return frames
    source = pick(u[0], most + 1, last - most - 1)
    target = source + pick(u[1], -most, most)
    out = []
    for t in range(len(frames)):
        if t < target:
            place = t * source / target
        else:
            place = source + (t - target) * (last - source) / (last - target)
        left = min(math.floor(place + 1e-5), last)
        part = max(0.0, place - left)
        right = min(left + 1, last)
        out.append((1 - part) * frames[left] + part * frames[right])
    return torch.stack(out)


def by_definition(features, lengths, draws, augment):
    out = features.clone()
    n_freq, n_time = 1 + 2 * augment.freq_count[1], 1 + 2 * augment.time_count[1]
    for i, length in enumerate(lengths):
        u = draws[i].tolist()
        if augment.time_warp and length:
            out[i, :length] = warped(out[i, :length], u[n_freq + n_time :], augment.time_warp)
        bins, share = features.shape[2], math.floor(augment.time_share * length + 1e-6)
        for f in masked_positions(u, bins, augment.freq_count, augment.freq_width, 10**9):
            out[i, :, f] = 0
        of_time = u[n_freq : n_freq + n_time]
        for t in masked_positions(of_time, length, augment.time_count, augment.time_width, share):
            out[i, t] = 0
    return out


def run(augment, features, lengths, seed=0):
    torch.manual_seed(seed)
    relative = torch.tensor(lengths) / features.shape[1]
    got, got_lengths = augment(features, relative)
    assert got_lengths is relative
    return got


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_it_is_its_definition_written_with_loops(options, seed):
    augment = SpecAugment(**options)
    features = 1 + torch.rand(5, 60, 40)
    before = features.clone()
    got = run(augment, features, LENGTHS, seed)
    assert torch.equal(features, before)
    torch.manual_seed(seed)
    n_draws = 4 + 2 * augment.freq_count[1] + 2 * augment.time_count[1]
    expected = by_definition(features, LENGTHS, torch.rand(5, n_draws), augment)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_masks_stay_within_bounds_and_lengths_and_differ_between_utterances():
    augment = SpecAugment(freq_count=(0, 0), time_width=(0, 30))
    lengths = torch.randint(0, 301, (500,)).tolist()
    got = run(augment, torch.ones(500, 300, 2), lengths)
    in_time = (got == 0).all(2)
    for utterance, length in zip(in_time, lengths, strict=True):
        assert not utterance[length:].any()
        assert utterance.sum() <= 0.15 * length
    long = torch.tensor(lengths) > 200
    assert in_time[long].float().mean() > 0.02
    assert len(in_time[long].unique(dim=0)) > 0.9 * long.sum()


def test_counts_widths_and_places_are_uniform():
    """Within five standard deviations."""

    def assert_uniform(counts):
        mean = sum(counts) / len(counts)
        assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in counts)

    augment = SpecAugment(freq_count=(1, 1), freq_width=(1, 4), time_count=(0, 0))
    bands = run(augment, torch.ones(12_000, 1, 8), [1] * 12_000)[:, 0] == 0
    widths = bands.sum(1)
    assert_uniform(torch.bincount(widths).tolist()[1:])
    starts = bands[widths == 3].int().argmax(1)
    assert_uniform(torch.bincount(starts, minlength=6).tolist())
    # Masks of one bin each are seldom on one of three hundred.
    augment = SpecAugment(freq_count=(0, 2), freq_width=(1, 1), time_count=(0, 0))
    bins = run(augment, torch.ones(6000, 1, 300), [1] * 6000)[:, 0] == 0
    assert_uniform(torch.bincount(bins.sum(1)).tolist())


def test_a_seed_decides():
    augment, features = SpecAugment(time_warp=4), torch.rand(5, 60, 40)
    first = run(augment, features, LENGTHS, 1)
    assert torch.equal(first, run(augment, features, LENGTHS, 1))
    assert not torch.equal(first, run(augment, features, LENGTHS, 2))


def test_a_batch_of_nothing_stays_so():
    for shape in ((0, 4, 3), (2, 1, 3)):
        features, lengths = SpecAugment(time_warp=2)(torch.ones(shape), torch.zeros(shape[0]))
        assert features.shape == shape
        assert features.isfinite().all()
        assert len(lengths) == shape[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("freq_count", 2),
        ("freq_count", [3, 2]),
        ("freq_width", [-1, 2]),
        ("time_count", [1, 2, 3]),
        ("time_width", [0, 1.5]),
        ("time_share", 1.5),
        ("time_warp", -1),
    ],
)
def test_an_argument_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        SpecAugment(**{name: value})
