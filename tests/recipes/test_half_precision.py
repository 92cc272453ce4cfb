"""Training in half precision."""

import json
from statistics import fmean

import pytest
import torch
from speechbrain.core import Brain
from test_mini_recipe import same, weights
from tiny import arguments

from todm_sb.training.brain import TODMBrain
from todm_sb.training.watch import read_steps
from todm_sb.utils.errors import one_line_errors

SCALE = 2.0**14

# torch has no LSTM in float16 for every CPU.
MODEL = (
    "{d_joint: 24, encoder: {d_model: 16, n_heads: 4, channels: [4, 4]}, "
    "predictor: {kind: stateless, d_model: 16}}"
)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """--precision=fp16 as SpeechBrain sets it up on a GPU, with a scale that is too large.

    Float16 and the loss scaler exist for the CPU too, but SpeechBrain does not offer them there.
    """
    make = Brain.__init__

    def make_with_scaler(self, *args, **kwargs):
        make(self, *args, **kwargs)
        self.training_ctx = torch.autocast("cpu", torch.float16)
        self.scaler = torch.GradScaler("cpu", init_scale=SCALE)
        self.checkpointer.add_recoverable("scaler", self.scaler, optional_load=True)

    monkeypatch.setattr(Brain, "__init__", make_with_scaler)


def test_a_loss_scale_that_is_too_large_costs_steps_until_it_is_not(
    corpus, train, tmp_path, as_on_a_gpu
):
    train(arguments(corpus, tmp_path / "run", number_of_epochs=1, model=MODEL))
    steps = [json.loads(x) for x in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()]
    left_out = [step["left out"] for step in steps]
    assert left_out[0] == 1
    assert left_out[-1] < len(steps)
    (scaler,) = (tmp_path / "run" / "save").glob("CKPT*/scaler.ckpt")
    assert torch.load(scaler, weights_only=False)["scale"] == SCALE / 2 ** left_out[-1]
    assert "is not finite: step left out" in (tmp_path / "run" / "log.txt").read_text()
    assert all(v.isfinite().all() for v in weights(tmp_path / "run")["model"].values())


@pytest.mark.slow
def test_a_run_in_fp16_that_is_broken_off_ends_as_an_unbroken_one(
    corpus, train, tmp_path, as_on_a_gpu, monkeypatch
):
    class BrokenOffError(Exception):
        pass

    fit_batch, steps = TODMBrain.fit_batch, []

    def breaks_off(self, batch):
        steps.append(self.step)
        if len(steps) == 4:
            raise BrokenOffError
        return fit_batch(self, batch)

    # With two views of an utterance, from the second step on.
    views = {"objective": "{consistency_weight: 0.2}", "augment_after": 1, "micro_batches": 2}
    options = {"number_of_epochs": 1, "model": MODEL, **views}
    train(arguments(corpus, tmp_path / "unbroken", **options))
    command = arguments(corpus, tmp_path / "run", ckpt_interval_steps=1, **options)
    with monkeypatch.context() as patch:
        patch.setattr(TODMBrain, "fit_batch", breaks_off)
        with pytest.raises(BrokenOffError):
            train(command)
    train(command)
    masked = ["consistency" in step for step in read_steps(tmp_path / "run" / "steps.jsonl")]
    assert masked == [False] + [True] * (len(masked) - 1)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "unbroken"))


def test_fp16_on_a_cpu_is_refused_in_one_line(corpus, train, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        train(arguments(corpus, tmp_path / "run", precision="fp16"))
    assert ended.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert line == "error: precision fp16 needs a GPU: on a CPU take --precision=bf16 or fp32"


@pytest.mark.slow
def test_after_200_steps_the_loss_in_bf16_is_that_in_fp32(train, tmp_path):
    means = {}
    for precision in ("fp32", "bf16"):
        options = {"n_train": 120, "max_batch_seconds": 4.0, "precision": precision}
        train(arguments(tmp_path / "corpus", tmp_path / precision, **options))
        steps = read_steps(tmp_path / precision / "steps.jsonl")
        assert len(steps) >= 200
        means[precision] = fmean(loss for step in steps[180:200] for loss in step["losses"])
    assert means["bf16"] == pytest.approx(means["fp32"], rel=0.02)
    assert means["bf16"] != means["fp32"]
