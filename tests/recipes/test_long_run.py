"""A long run on a busy machine: memory and file handles stay flat."""

import multiprocessing
import sys

import pytest
from soak import Gauge
from tiny import arguments

from todm_sb.training.brain import TODMBrain
from todm_sb.training.watch import read_steps

EPOCHS, N_TRAIN = 30, 120


def work_for_ever():
    while True:
        sum(range(10_000))


@pytest.fixture
def load():
    """Other processes that want every core, with a little less right to it."""
    context = multiprocessing.get_context("spawn")
    n = multiprocessing.cpu_count()
    others = [context.Process(target=work_for_ever, daemon=True) for _ in range(n)]
    for process in others:
        process.start()
    yield
    for process in others:
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_thousand_steps_under_load_need_no_more_memory_than_hundreds(
    train, tmp_path, monkeypatch, load
):
    gauge, fit_batch = Gauge(), TODMBrain.fit_batch

    def counts(self, batch):
        loss = fit_batch(self, batch)
        if self.optimizer_step % 50 == 0:
            gauge.read()
        return loss

    monkeypatch.setattr(TODMBrain, "fit_batch", counts)
    options = {"n_train": N_TRAIN, "number_of_epochs": EPOCHS, "max_batch_seconds": 4.0}
    train(arguments(tmp_path / "corpus", tmp_path / "run", **options))
    steps = read_steps(tmp_path / "run" / "steps.jsonl")
    assert len(steps) >= 3000
    # A leak of 10 kB a step would be seen.
    gauge.assert_flat(settled=12, mb=12)
