"""Weights that change while a network is trained."""

import math

import pytest

from todm_sb.supernet.objective import Objective
from todm_sb.supernet.schedule import Schedule, at
from todm_sb.utils.errors import ConfigError


@pytest.mark.parametrize(
    ("batches", "weight"),
    [(0, 1.0), (100, 1.0), (150, 0.825), (200, 0.65), (300, 0.3), (10**9, 0.3), (None, 0.3)],
)
def test_a_weight_goes_straight_from_start_to_end(batches, weight):
    assert at(Schedule(1.0, 0.3, 100, 300), batches) == pytest.approx(weight, abs=1e-12)


def test_a_weight_may_rise_jump_or_stay():
    rising, jump = Schedule(0.0, 2.0, 0, 4), Schedule(1.0, 0.5, 7, 7)
    assert [rising(step) for step in range(6)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert [jump(step) for step in (0, 6, 7, None)] == [1.0, 1.0, 0.5, 0.5]
    for constant in (0.3, Schedule(0.3), Schedule(0.3, first_batch=2, last_batch=9)):
        assert {at(constant, step) for step in (0, 5, 100, None)} == {0.3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1.0}, "start must be a number from 0 on"),
        ({"start": 1.0, "end": math.inf}, "end must be a number"),
        ({"start": "1"}, "start must be a number"),
        ({"start": 1.0, "end": 0.5, "first_batch": -1}, "first_batch must be"),
        ({"start": 1.0, "end": 0.5, "first_batch": 9, "last_batch": 3}, "last_batch is 3"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Schedule(**options)


def test_a_schedule_is_true_if_it_is_ever_above_zero():
    assert not Schedule(0.0)
    assert not Schedule(0.0, 0.0, 1, 2)
    assert all((Schedule(0.3), Schedule(0.0, 0.1), Schedule(0.1, 0.0)))


@pytest.mark.parametrize("wrong", ["0.3", -0.1, None, Schedule, math.nan])
def test_a_weight_is_a_number_or_what_gives_one(wrong):
    with pytest.raises(ConfigError, match="ctc_weight must be a number"):
        Objective(ctc_weight=wrong)
