"""Nats a label of the first steps."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training" / "objective_start.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT), run_name="benchmark")


@pytest.fixture(scope="module")
def nats_a_label(script):
    return script["nats_a_label"]


def record(step, loss):
    """Of a batch of 2 utterances and 10 s."""
    return {"step": step, "utterances": 2, "audio": 10.0, "ctc": [2 * loss, 0.0], "max": loss}


def test_losses_are_those_of_the_last_twenty_steps_over_their_labels(nats_a_label):
    records = [record(step, 1000.0 if step <= 10 else 30.0) for step in range(1, 31)]
    # 20 x 2 utterances of 30 nats, 20 x 10 s of 3 labels.
    assert nats_a_label(records, rate=3.0, step=30) == {"ctc": 4.0, "transducer": 2.0}


def test_a_step_that_is_not_reached_has_none(nats_a_label):
    assert nats_a_label([record(step, 30.0) for step in range(1, 30)], rate=3.0, step=30) is None


def test_a_run_with_other_arguments_is_not_taken_for_this_one(script, tmp_path):
    (tmp_path / "default-1.json").write_text('["--seed=1"]')
    with pytest.raises(SystemExit, match="default-1 was run with other arguments"):
        script["run"](Path("recipe.yaml"), tmp_path / "default-1", ["--seed=1", "--lr=0.1"], 0)
    script["run"](Path("recipe.yaml"), tmp_path / "default-1", ["--seed=1"], 0)
