"""Batches of an epoch: their bound, padding and order, and that they are the same for who asks."""

import math
import random
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.dataloader import SaveableDataLoader

from todm_sb.dataio.batches import MAX_PADDING, DurationBatches, cut, largest_growth, split
from todm_sb.nnet.speed_perturb import SpeedPerturb as OurSpeedPerturb

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from batches import BOUNDS, librispeech_960, padded, train_clean_5

CORPORA = {"train-clean-5": train_clean_5(), "960 h": librispeech_960()}
RATE = 16000


def epoch_of(durations, max_seconds, seed=1, epoch=1, **options):
    sampler = DurationBatches(durations, max_seconds, seed, **options)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    return batches


def test_the_corpora_are_as_said():
    small, large = CORPORA.values()
    assert len(small) == 1519
    assert small.sum() / 3600 == pytest.approx(5.31, rel=0.005)
    assert len(large) == 281_241
    assert large.mean() == pytest.approx(12.3, abs=0.1)
    assert ((large > 10) & (large < 17)).mean() > 0.75
    assert 24 < large.max() <= 24.5


@pytest.mark.parametrize("max_seconds", BOUNDS)
@pytest.mark.parametrize("name", CORPORA)
def test_batches_are_full_and_pad_less_than_5_percent(name, max_seconds):
    durations = CORPORA[name]
    batches = epoch_of(durations, max_seconds)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(durations)))
    seconds = padded(durations, batches)
    assert seconds.max() <= max_seconds
    assert seconds.sum() < 1.05 * durations.sum()
    # Filled to the brim, batches of 3,000 s would be 8 and pad 10 % of train-clean-5.
    if (name, max_seconds) != ("train-clean-5", 3000):
        assert seconds.mean() > 0.9 * max_seconds
    longest = seconds / [len(batch) for batch in batches]
    if len(batches) > 100:
        assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


@pytest.mark.parametrize("max_seconds", [30, 3000])
@pytest.mark.parametrize("speeds", [[90, 95, 100, 105, 110], [95, 100, 105]])
def test_batches_are_within_the_bound_when_slowed_down(max_seconds, speeds):
    durations = train_clean_5()
    augmenter = Augmenter(augmentations=[SpeedPerturb(RATE, speeds)])
    bound = max_seconds / largest_growth(augmenter)
    fullest = max(epoch_of(durations, bound), key=lambda b: len(b) * durations[b].max())
    n, longest = len(fullest), durations[fullest].max()
    # All utterances are resampled by as much: one tells of them all.
    audio = torch.zeros(1, round(longest * RATE))
    shapes = {augmenter(audio, torch.ones(1))[0].shape for _ in range(60)}
    assert len(shapes) == len(speeds)
    seconds = n * max(shape[1] for shape in shapes) / RATE
    # A resampled utterance has a whole number of samples.
    assert 0.9 * max_seconds < seconds <= max_seconds + n / RATE
    if max_seconds == 3000:
        assert n * longest / (min(speeds) / 100) == pytest.approx(seconds, abs=n / RATE)


def test_an_utterance_beyond_the_bound_is_a_batch_of_its_own():
    durations = np.array([1.0, 50.0, 2.0, 40.0, 2.0])
    for shuffle in (False, True):
        batches = epoch_of(durations, 30.0, shuffle=shuffle)
        assert [1] in batches
        assert [3] in batches
        assert sorted(i for batch in batches for i in batch) == list(range(5))


def partitions(items):
    """All ways to divide a list into groups."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for n in range(len(rest) + 1):
        for others in combinations(rest, n):
            left = [i for i in rest if i not in others]
            for groups in partitions(left):
                yield [[first, *others], *groups]


@pytest.mark.parametrize("seed", range(8))
def test_no_division_has_fewer_batches_within_the_bound(seed):
    rng = np.random.default_rng(seed)
    durations = rng.uniform(1, 6, 7)
    bound = rng.uniform(4, 25)
    fewest = min(
        len(groups)
        for groups in partitions(list(range(7)))
        if all(len(g) == 1 or len(g) * durations[g].max() <= bound for g in groups)
    )
    ascending = np.sort(durations)
    assert len(cut(ascending, bound)) == fewest
    assert len(cut(ascending[::-1], bound)) == fewest


@pytest.mark.parametrize("seed", range(8))
def test_at_most_one_batch_is_more_than_little_padding_takes(seed):
    durations = np.random.default_rng(seed).uniform(1, 6, 8)
    limit = 1.15 * durations.sum()
    batches = split(durations, [list(range(8))], 0.15)
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert padded(durations, batches).sum() <= limit
    fewest = min(
        len(groups)
        for groups in partitions(list(range(8)))
        if padded(durations, groups).sum() <= limit
    )
    assert fewest <= len(batches) <= fewest + 1


def test_one_split_is_the_best_and_equal_utterances_stay_together():
    durations = np.random.default_rng(0).uniform(1, 6, 30)
    everything = list(range(30))
    (before,) = padded(durations, [everything])
    # One split is enough, if any is, to save a single second of padding.
    share = (before - 1 - durations.sum()) / durations.sum()
    batches = split(durations, [everything], share)
    ascending = np.argsort(durations)
    least = min(
        padded(durations, [ascending[:n].tolist(), ascending[n:].tolist()]).sum()
        for n in range(1, 30)
    )
    assert len(batches) == 2
    assert padded(durations, batches).sum() == pytest.approx(least)
    assert split(np.full(9, 2.5), [list(range(9))], 0.0) == [list(range(9))]


def test_batches_follow_from_seed_and_epoch_alone():
    durations = train_clean_5()
    first = epoch_of(durations, 100)
    sampler = DurationBatches(durations, 100, seed=1)
    for epoch in (5, 2):  # as after another history, with other random numbers around
        random.seed(epoch)
        np.random.seed(epoch)  # noqa: NPY002
        torch.manual_seed(epoch)
        sampler.set_epoch(epoch)
        list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) == first == list(sampler)
    others = [epoch_of(durations, 100, *place) for place in ((1, 2), (2, 1), (2, 2))]
    contents = [{tuple(sorted(b)) for b in batches} for batches in (first, *others)]
    for ours, theirs in combinations(contents, 2):
        assert len(ours & theirs) < 0.2 * len(ours)  # the longest and shortest have few to be with


def test_evaluation_goes_from_the_shortest_to_the_longest_in_every_epoch():
    durations = train_clean_5()
    for bound in (30, 300, 3000):  # cut, and cut and split
        batches = epoch_of(durations, bound, shuffle=False)
        longest = [durations[batch].max() for batch in batches]
        assert longest == sorted(longest)
        assert batches == epoch_of(durations, bound, seed=2, epoch=7, shuffle=False)
        assert padded(durations, batches).sum() <= (1 + MAX_PADDING) * durations.sum()


@pytest.mark.parametrize("max_seconds", [300, 3000])
def test_the_first_epochs_ascend_and_are_batches_of_their_own(max_seconds):
    durations = train_clean_5()
    epochs = []
    for epoch in range(5):
        batches = epoch_of(durations, max_seconds, epoch=epoch, ascending_epochs=2)
        shuffled = epoch_of(durations, max_seconds, epoch=epoch)
        longest = [durations[batch].max() for batch in batches]
        assert (longest == sorted(longest)) == (epoch in (1, 2))
        # Of the epoch's own batches; after them everything is as without.
        assert sorted(batches) == sorted(shuffled)
        assert (batches == shuffled) == (epoch not in (1, 2))
        epochs.append(batches)
    assert epochs[1] != epochs[2]


def test_a_loader_goes_on_where_it_was_saved(tmp_path):
    def loader():
        sampler = DurationBatches(train_clean_5(), 300, seed=1)
        return SaveableDataLoader(range(1519), batch_sampler=sampler, collate_fn=list), sampler

    whole, sampler = loader()
    sampler.set_epoch(3)
    batches = iter(whole)
    for _ in range(20):
        next(batches)
    whole._speechbrain_save(tmp_path / "loader")
    resumed, sampler = loader()
    resumed._speechbrain_load(tmp_path / "loader", end_of_epoch=False)
    sampler.set_epoch(3)
    rest = list(resumed)
    assert rest == list(batches)
    assert len(rest) == len(sampler) - 20


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1 / 0.9),
        ({"augment_prob": 0.5}, 1 / 0.9),
        ({"concat_original": True}, 2 / 0.9),
        ({"repeat_augment": 3}, 3 / 0.9),
        ({"repeat_augment": 2, "concat_original": True}, 3 / 0.9),
        ({"speeds": [[90], [80]]}, 1 / 0.9 / 0.8),
        ({"speeds": [[90], [80]], "parallel_augment": True}, 2 / 0.8),
        ({"speeds": [[90], [80]], "parallel_augment": True, "concat_original": True}, 3 / 0.8),
        (
            {
                "speeds": [[90], [80]],
                "parallel_augment": True,
                "parallel_augment_fixed_bs": True,
                "concat_original": True,
            },
            2 / 0.8,
        ),
        ({"speeds": [[110, 120]]}, 1),
        ({"enable_augmentations": [False], "min_augmentations": 0}, 1),
        ({"speeds": []}, 1),
    ],
)
def test_growth_is_the_most_that_the_augmenter_makes_of_a_batch(options, expected):
    options = dict(options)
    perturbations = [SpeedPerturb(RATE, speeds) for speeds in options.pop("speeds", [[90, 100]])]
    augmenter = Augmenter(augmentations=perturbations, **options)
    assert largest_growth(augmenter) == pytest.approx(expected)
    batch = torch.zeros(4, 3600)
    shapes = [augmenter(batch, torch.ones(4))[0].shape for _ in range(30)]
    most = max(math.prod(shape) for shape in shapes) / batch.numel()
    if most > 1:
        assert most == pytest.approx(expected, rel=1e-3)
    assert largest_growth(None) == 1
    assert largest_growth(OurSpeedPerturb([90, 110])) == pytest.approx(1 / 0.9)
