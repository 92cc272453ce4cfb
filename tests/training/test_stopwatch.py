"""Seconds are counted by name, and over restarts."""

import time

import pytest

from todm_sb.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A wall clock and a processor clock that run only when told to."""
    now = {"wall": 100.0, "processor": 10.0}
    monkeypatch.setattr(time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(time, "process_time", lambda: now["processor"])

    def run(wall, processor):
        now["wall"] += wall
        now["processor"] += processor

    return run


def test_each_name_is_counted_while_it_runs(clock):
    watch = Stopwatch()
    watch.start("train")
    clock(5, 4)
    watch.start("valid")
    clock(2, 1)
    watch.stop()
    clock(7, 7)
    watch.start("train")
    clock(3, 1)
    assert watch.seconds() == {
        "train": {"wall": 8, "processor": 5},
        "valid": {"wall": 2, "processor": 1},
    }


def test_what_was_lost_in_a_crash_is_not_counted(clock, tmp_path):
    watch = Stopwatch()
    watch.start("train")
    clock(5, 4)
    watch.save(tmp_path / "stopwatch")
    clock(50, 40)
    resumed = Stopwatch()
    resumed.load(tmp_path / "stopwatch", end_of_epoch=False)
    assert resumed.seconds() == {"train": {"wall": 5, "processor": 4}}
    resumed.start("train")
    clock(1, 1)
    assert resumed.seconds() == {"train": {"wall": 6, "processor": 5}}
