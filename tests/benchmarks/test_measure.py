import functools
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from measure import MB, Row, peak_memory, time_in_turn


def hold(megabytes):
    """Work that holds this much and half of it again, one after the other, beside its input."""
    inputs = torch.ones(int(50 * MB / 4))

    def work():
        first = torch.ones(int(megabytes * MB / 4))
        half = first[: len(first) // 2].clone()
        return (half + 1).sum() + inputs.sum()

    return work


@pytest.mark.parametrize("megabytes", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_peak_memory_is_what_the_work_holds_at_once_over_its_inputs(megabytes):
    peak = peak_memory(functools.partial(hold, megabytes))
    assert peak / MB == pytest.approx(2 * megabytes, rel=0.05, abs=1.5)


def fail():
    raise ValueError("cannot prepare")


def test_what_goes_wrong_in_the_other_process_is_raised_here():
    with pytest.raises(ValueError, match="cannot prepare"):
        peak_memory(fail)


@pytest.mark.parametrize("own_clock", [False, True])
def test_work_is_timed_in_turn_after_warming_up(monkeypatch, own_clock):
    now, calls = [0.0], []
    durations = {"ours": iter([9, 9, 1, 2, 6]), "peer": iter([9, 9, 5, 4, 3])}

    def work(name):
        calls.append(name)
        now[0] += next(durations[name])

    options = {"repeats": 3, "warmup": 2}
    if own_clock:
        options["clock"] = lambda: now[0]
    else:
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    ours, peer = time_in_turn(
        functools.partial(work, "ours"), functools.partial(work, "peer"), **options
    )
    assert calls == ["ours", "peer"] * 5
    assert (ours.median, ours.minimum) == (2, 1)
    assert (peer.median, peer.minimum) == (4, 3)


def test_a_row_tells_its_ratio_and_whether_it_meets_the_target():
    assert str(Row("a", "B 8", 30, 40, "ms", 0.8)) == (
        "| a | B 8 | 30 ms | 40 ms | 0.750 | <= 0.8 (met) |"
    )
    assert str(Row("a", "B 8", 33, 40, "ms", 0.8)).endswith("| 0.825 | <= 0.8 (missed) |")
