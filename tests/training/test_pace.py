"""Schedules count audio: what they are does not hang on how many processes train."""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from test_distributed import SPACE, STEPS, global_batch, make_brain

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.experiments.plan.plan import steps_of_epoch
from todm_sb.optim import Eden
from todm_sb.space import SearchSpace
from todm_sb.training.pace import AUTO, Pace, never_begun, pace_of
from todm_sb.utils.errors import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from schedule import course_of

RECIPE = {"max_batch_seconds": 300.0, "reference_batch_seconds": 2400.0}
EDEN = {"lr_initial": 0.045, "lr_batches": 7500, "lr_epochs": 10.5, "warmup_batches": 500}


@pytest.mark.parametrize(
    ("n_ranks", "factor", "reference_batches"),
    [
        *[(1, 8, 1.0), (2, 4, 1.0), (4, 2, 1.0), (8, 1, 1.0), (64, 1, 8.0)],
        (3, 3, 1.125),  # 2,700 s are nearer than 1,800
        (5, 2, 1.25),
        (7, 1, 0.875),
    ],
)
def test_auto_comes_nearest_to_the_reference(n_ranks, factor, reference_batches):
    assert pace_of(RECIPE, AUTO, n_ranks) == Pace(factor, reference_batches)


def test_a_number_wins_and_a_step_is_worth_its_audio():
    assert pace_of(RECIPE, 1, 1) == Pace(1, 0.125)
    assert pace_of(RECIPE, 16, 4) == Pace(16, 8.0)


def test_without_a_reference_each_step_is_one():
    for settings in ({}, {"reference_batch_seconds": None, "max_batch_seconds": 7.0}):
        assert pace_of(settings, 3, 5) == Pace(3, 1.0)
        with pytest.raises(ConfigError, match="is auto, but there is no reference_batch_seconds"):
            pace_of(settings, AUTO, 5)


def published(seconds, n_passes):
    """Eden as it is published, after so much audio: 2,400 s a batch."""
    t, e = seconds / 2400, n_passes
    rate = 0.045 * ((t**2 + 7500**2) / 7500**2) ** -0.25 * ((e**2 + 10.5**2) / 10.5**2) ** -0.25
    return rate * (0.5 + 0.5 * t / 500 if t < 500 else 1)


@pytest.mark.parametrize(
    ("factor", "n_ranks"), [(AUTO, 1), (AUTO, 4), (AUTO, 8), (AUTO, 64), (1, 1), (3, 5)]
)
def test_after_the_same_audio_the_learning_rate_is_the_same(factor, n_ranks):
    """Three passes over 200 h; the warm-up is 333 h."""
    pace = pace_of(RECIPE, factor, n_ranks)
    steps = steps_of_epoch(720_000, 300.0, pace, n_ranks)
    rates = course_of(Eden(**EDEN), pace, 3, steps).rates
    assert len(rates) == 3 * steps
    seconds_a_step = 300 * n_ranks * pace.grad_accumulation_factor
    expected = [published(i * seconds_a_step, i // steps) for i in range(3 * steps)]
    assert max(abs(rate / x - 1) for rate, x in zip(rates, expected, strict=True)) < 1e-9


def test_steps_and_passes_are_those_of_the_audio():
    for n_ranks in (1, 4, 8, 64):
        pace = pace_of(RECIPE, AUTO, n_ranks)
        steps = steps_of_epoch(3600 * 960, 270.0, pace, n_ranks)
        course = course_of(Eden(**EDEN), pace, 1, steps)
        # An epoch is 1,600 reference batches; its last step may lack some.
        assert course.batches[-1] == pytest.approx(1600, abs=1 + pace.reference_batches)
        assert course.steps(500) == math.ceil(500 / pace.reference_batches)


def test_the_small_recipes_have_the_rates_they_had():
    """A batch of mini.yaml is its reference: Eden over whole batches, as before, bit for bit."""
    options = {"lr_initial": 0.05, "lr_batches": 300, "lr_epochs": 2, "warmup_batches": 50}
    mini = {"max_batch_seconds": 30.0, "reference_batch_seconds": 30.0}
    rates = course_of(Eden(**options), pace_of(mini, AUTO, 1), 6, 181).rates

    def before(batch, epoch):
        rate = (1 + (batch / 300) ** 2) ** -0.25 * (1 + (epoch / 2) ** 2) ** -0.25
        return 0.05 * (rate * (0.5 + 0.5 * (batch / 50) if batch < 50 else 1.0))

    assert rates == [before(i, i // 181) for i in range(6 * 181)]


@pytest.mark.parametrize(
    ("n_batches", "space", "lines"),
    [
        # Steps of 2 reference batches, two in each of 2 epochs, or three.
        (3, SPACE, ["sandwich_warmup is 8, .* training is 8 reference", "augment_after is 9"]),
        (4, SPACE, ["sandwich_warmup is 8", "augment_after is 9"]),
        (5, SPACE, []),
        (3, {"n_layers": 1, "min_layers": 1, "ffn_dims": [8]}, ["augment_after is 9"]),
    ],
)
def test_what_would_never_begin_is_told(n_batches, space, lines):
    settings = {"max_batch_seconds": 10.0, "reference_batch_seconds": 20.0}
    settings |= {"sandwich_warmup": 8, "augment_after": 9, "wav_augment": "one"}
    settings |= {"space": SearchSpace.from_dict(space), "epoch_counter": EpochCounter(2)}
    pace = pace_of(settings, 2, 2)
    found = never_begun(settings, n_batches, pace)
    assert len(found) == len(lines)
    assert all(re.match(line, x) for line, x in zip(lines, found, strict=True))
    plain = never_begun(settings | {"wav_augment": None}, n_batches, pace)
    assert not any("augment_after" in x for x in plain)


def test_masks_that_would_never_begin_are_told_apart():
    settings = {"max_batch_seconds": 1.0, "reference_batch_seconds": 1.0, "sandwich_warmup": 0}
    settings |= {"wav_augment": "one", "feature_augment": "another", "augment_after": 0}
    settings |= {"space": SearchSpace.from_dict(SPACE), "epoch_counter": EpochCounter(2)}
    pace = pace_of(settings, 1, 1)

    def told(**changed):
        return [x.split(" is ")[0] for x in never_begun(settings | changed, 4, pace)]

    assert told() == told(mask_after=7) == []
    assert told(mask_after=8) == ["mask_after"]
    assert told(augment_after=8, mask_after=0) == ["augment_after"]
    assert told(augment_after=8, mask_after=8) == ["augment_after", "mask_after"]
    (line,) = never_begun(settings | {"augment_after": 8}, 4, pace)
    assert "batches, none with wav_augment or feature_augment; --augment_after=0" in line


class Counted(SearchSpace):
    """A space that counts the random subnets drawn from it."""

    drawn = 0

    def random(self, rng, alike=0.0):
        Counted.drawn += 1
        return super().random(rng, alike)


@pytest.mark.parametrize(
    ("seconds", "factor", "first"),
    [(12.0, 1, 3), (6.0, 1, 6), (6.0, 2, 3), (6.0, AUTO, 3), (36.0, AUTO, 1)],
)
def test_the_sandwich_starts_after_so_much_audio(seconds, factor, first):
    """After 3 reference batches of 12 s; ``first`` is the step that is the first to have one."""
    brain = make_brain(
        torch.float32, factor, max_batch_seconds=seconds, reference_batch_seconds=12.0
    )
    brain.sandwich.space = Counted.from_dict(SPACE)
    step = None
    for brain.step in range(1, STEPS):
        Counted.drawn, begun = 0, brain.optimizer_step
        brain.fit_batch(SpeechBatch(global_batch(brain.step, torch.float32)))
        if Counted.drawn:
            step = begun
            break
    assert step == first
    assert brain.step == first * brain.grad_accumulation_factor + 1


def test_a_resumed_schedule_goes_on_where_it_was_with_another_number_of_processes(tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.045)
    eden, again = Eden(**EDEN), Eden(**EDEN)
    for _ in range(320):
        eden(optimizer, pace_of(RECIPE, AUTO, 8).reference_batches)
    eden.save(tmp_path / "eden")
    again.load(tmp_path / "eden")
    for _ in range(20):
        again(optimizer, pace_of(RECIPE, AUTO, 64).reference_batches)
    assert again.batch == 320 + 20 * 8
    assert optimizer.param_groups[0]["lr"] == pytest.approx(published(480 * 2400, 0))
