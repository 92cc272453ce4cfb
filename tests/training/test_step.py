"""The gradient of a step, and what is told of a batch."""

import math
import random

import pytest
import torch
from test_distributed import global_batch, make_brain

from todm_sb.dataio.pipeline import BrokenAudio, SpeechBatch
from todm_sb.supernet.sandwich import sample_sandwich, sandwich_backward
from todm_sb.training import step
from todm_sb.training.step import PULL_EVERY, record_of_step

WARMUP = 3


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize(("at", "n_subnets"), [(WARMUP - 1, 1), (WARMUP, 3)])
def test_the_gradient_of_a_step_is_the_mean_over_its_subnets(at, n_subnets):
    brain = make_brain(torch.float64, accumulation=1)
    model, batch = brain.modules["model"], SpeechBatch(global_batch(1, torch.float64))
    subnets = sample_sandwich(brain.hparams.space, 1, random.Random(7))[:n_subnets]
    trunk, labels = brain.sandwich.shared_part(batch, causal=False, batches=at)
    losses = sandwich_backward(model, brain.hparams.objective, trunk, labels, subnets, batches=at)
    expected = gradients(model)

    trained = brain.sandwich.add(batch, at, random.Random(7), torch.Tensor.backward, "cpu")
    got = gradients(model)
    assert trained.subnets == subnets
    assert [x.total for x in trained.losses] == pytest.approx([x.total.item() for x in losses])
    assert got.keys() == expected.keys()
    for name, total in expected.items():
        torch.testing.assert_close(got[name], total / n_subnets, rtol=1e-5, atol=1e-7)


def test_a_step_is_as_the_recipe_says():
    sandwich = make_brain(
        torch.float32,
        accumulation=1,
        uniform_share=0.25,
        gradient_sums="bf16",
        augment_after=3,
        mask_after=7,
    ).sandwich
    assert sandwich.alike == 0.25
    assert sandwich.sum_dtype is torch.bfloat16
    assert (sandwich.shared_part.augment_after, sandwich.shared_part.mask_after) == (3, 7)


def test_the_pull_of_distillation_is_told_now_and_then_and_changes_nothing():
    def trained(at):
        brain = make_brain(torch.float64, accumulation=1)
        brain.sandwich.micro_batches = 2
        torch.manual_seed(0)
        batch = SpeechBatch(global_batch(1, torch.float64))
        told = brain.sandwich.add(batch, at, random.Random(7), torch.Tensor.backward, "cpu")
        brain.sandwich.finish([])
        return record_of_step([told], 0.5, {})["values"], gradients(brain.modules["model"])

    (quiet, expected), (values, got) = trained(PULL_EVERY - 1.5), trained(PULL_EVERY - 1)
    told = {name for name in values if name.startswith(("kd ratio", "kd cosine"))}
    assert values.keys() - quiet.keys() == told
    assert len(told) == 6
    assert all(math.isfinite(values[name]) for name in told)
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad, rtol=0, atol=0)


def test_what_a_batch_tells_is_of_all_processes():
    brain = make_brain(torch.float32, accumulation=1)
    examples = global_batch(1, torch.float32)
    trained = brain.sandwich.add(
        SpeechBatch(examples), 0, random.Random(0), torch.Tensor.backward, "cpu"
    )
    seconds = sum(x["duration"] for x in examples)
    record = record_of_step([trained], 0.5, {"clipped": 0.0})
    assert record["utterances"] == len(examples)
    assert record["seconds"] == pytest.approx(seconds)
    assert record["values"]["lr"] == 0.5
    assert record["values"]["max"] == trained.losses[0].terms["transducer"]
    other = {**vars(trained), "utterances_of_all": 3 * len(examples)}
    of_three = type(trained)(**other)
    assert record_of_step([of_three], 0.5, {})["seconds"] == pytest.approx(3 * seconds)


class Records:
    """In place of a Watch."""

    def __init__(self):
        self.records = []

    def record(self, step, epoch, **record):
        self.records.append({"step": step, **record})


def test_a_step_tells_the_audio_of_all_its_batches_even_if_nothing_of_the_last_could_be_read():
    brain = make_brain(torch.float32, accumulation=3)
    brain.watch = Records()
    groups = [[global_batch(3 * i + j, torch.float32) for j in range(3)] for i in range(2)]
    last = [{**x, "sig": BrokenAudio("gone")} for x in groups[1][2]]
    for brain.step, examples in enumerate([*groups[0], *groups[1][:2], last], start=1):
        brain.fit_batch(SpeechBatch(examples))
    sound = [groups[0], groups[1][:2]]
    assert [r["step"] for r in brain.watch.records] == [1, 2]
    for record, batches in zip(brain.watch.records, sound, strict=True):
        examples = [x for batch in batches for x in batch]
        assert record["utterances"] == len(examples)
        assert record["seconds"] == pytest.approx(sum(x["duration"] for x in examples))


@pytest.mark.parametrize(("seconds", "accumulation"), [(12.0, 1), (1.5, 1), (4.0, 3), (96.0, 1)])
def test_the_pull_is_told_once_in_so_many_reference_batches_whatever_a_step_is(
    seconds, accumulation, monkeypatch
):
    """In the step that completes them, of one of its batches; 96 s are a step of 64 GPUs."""
    brain = make_brain(
        torch.float32,
        accumulation,
        max_batch_seconds=seconds,
        reference_batch_seconds=12.0,
        sandwich_warmup=0,
    )
    worth, told = brain.pace.reference_batches, []
    monkeypatch.setattr(step, "PULL_EVERY", 2.5 * worth)
    monkeypatch.setattr(
        step,
        "distillation_pull",
        lambda *args: told.append(args[-1]) or {"kd ratio": torch.tensor(0.25)},
    )
    brain.watch = Records()
    batch = SpeechBatch(global_batch(1, torch.float32))
    for brain.step in range(1, 5 * accumulation + 1):
        brain.fit_batch(batch)
    assert told == [2 * worth, 4 * worth]
    pulls = [record["values"].get("kd ratio") for record in brain.watch.records]
    assert pulls == [None, None, 0.25, None, 0.25]
