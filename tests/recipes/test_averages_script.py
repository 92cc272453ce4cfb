"""The means of the epochs of a run, one beside the other."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from tiny import arguments

from todm_sb.utils.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "training"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield runpy.run_path(str(FOLDER / "averages.py"), run_name="benchmark")
    del sys.modules["validation"]


def test_each_row_is_of_the_weights_that_it_names(corpus, train, tmp_path, script, monkeypatch):
    run = tmp_path / "run"
    train(arguments(corpus, run, number_of_epochs=3, avg_checkpoints=3, average_every=1))
    saved = sorted((run / "save").glob("CKPT*"), key=lambda p: (p / "brain.ckpt").stat().st_mtime)
    saved = [folder for folder in saved if (folder / "average.ckpt").exists()][-3:]
    ends = [torch.load(folder / "model.ckpt") for folder in saved]
    means = [torch.load(folder / "average.ckpt")["mean"] for folder in saved]
    expected = [[ends[-1]], [means[-1]], ends, means]

    measured = []

    def dev_rates(brain, data):
        measured.append({k: v.clone() for k, v in brain.modules.model.state_dict().items()})
        return {"max": {"WER": 1.0, "CER": 2.0}}

    monkeypatch.setitem(script["main"].__globals__, "dev_rates", dev_rates)
    monkeypatch.setattr(sys, "argv", ["averages.py", str(run), "3"])
    script["main"]()
    assert len(measured) == len(expected)
    for found, some in zip(measured, expected, strict=True):
        for key, value in found.items():
            mean = torch.stack([weights[key].double() for weights in some]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_a_run_without_means_is_refused(tiny_run, script, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["averages.py", str(tiny_run), "2"])
    with pytest.raises(ConfigError, match=r"CKPT\S+ holds no mean: train with --average_every"):
        script["main"]()
