"""Speech at another speed: its tones, its length, and the draw."""

import math
from collections import Counter

import pytest
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import SpeedPerturb as Theirs

from todm_sb.nnet.speed_perturb import SpeedPerturb
from todm_sb.utils.errors import ConfigError

RATE = 16000


@pytest.mark.parametrize("speed", [90, 95, 100, 107, 110])
def test_a_tone_is_higher_and_shorter_by_the_speed(speed):
    n = RATE // 2
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(n) / RATE)
    (got,), lengths = SpeedPerturb([speed])(tone.unsqueeze(0), torch.ones(1))
    assert len(got) == math.ceil(n * 100 / speed)
    assert lengths.tolist() == [1.0]
    expected = torch.sin(2 * math.pi * 10 * speed * torch.arange(len(got)) / RATE)
    inner = slice(200, -200)
    assert (got - expected)[inner].abs().max() < 0.01


def test_it_is_speechbrains():
    wavs = torch.randn(3, 4000)
    for speed in (90, 95, 105):
        got, _ = SpeedPerturb([speed])(wavs, torch.ones(3))
        torch.testing.assert_close(got, Theirs(RATE, [speed])(wavs))


def test_it_can_be_one_of_several_augmentations_of_speechbrain():
    augmenter = Augmenter(augmentations=[SpeedPerturb([90])])
    wavs, lengths = torch.randn(2, 900), torch.tensor([0.5, 1.0])
    got, got_lengths = augmenter(wavs, lengths)
    torch.testing.assert_close(got, SpeedPerturb([90])(wavs, lengths)[0])
    assert got_lengths.equal(lengths)


def test_speeds_are_drawn_evenly_and_by_the_seed():
    perturb = SpeedPerturb([50, 100, 200])

    def draws():
        torch.manual_seed(3)
        return [perturb(torch.zeros(1, 100), torch.ones(1))[0].shape[1] for _ in range(300)]

    found = draws()
    assert found == draws()
    counts = Counter(found)
    assert counts.keys() == {50, 100, 200}
    assert all(70 < n < 130 for n in counts.values())


@pytest.mark.parametrize("speeds", [[], [0], [90.5], ["90"], [True]])
def test_what_is_no_speed_is_refused(speeds):
    with pytest.raises(ConfigError, match=r"speeds must be whole numbers of percent"):
        SpeedPerturb(speeds)
