"""What a run tells while it runs."""

import json
import logging
import math
from functools import partial

import pytest
import torch

from todm_sb.optim import ScaledAdam
from todm_sb.space import SubnetConfig
from todm_sb.supernet.losses import SubnetNumbers
from todm_sb.training.guard import GradientGuard
from todm_sb.training.watch import (
    Watch,
    memory,
    read_steps,
    values_of_gradient,
    values_of_subnets,
)


class Writer:
    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, step):
        self.scalars[name, step] = value


def run(watch, steps, start=1):
    for step in range(start, start + steps):
        watch.record(step, 1, {"max": float(step), "losses": [1.0, 2.0]}, 4, 7.5)


def test_every_step_is_a_line_of_json(tmp_path):
    watch = Watch(tmp_path)
    run(watch, 3)
    records = [json.loads(x) for x in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3]
    assert records[1]["max"] == 2.0
    assert records[1]["losses"] == [1.0, 2.0]
    assert (records[1]["utterances"], records[1]["audio"], records[1]["epoch"]) == (4, 7.5, 1)
    assert records[1]["memory GB"] == pytest.approx(memory(), rel=0.5)


def test_a_resumed_run_takes_its_steps_down_once(tmp_path):
    run(Watch(tmp_path), 5)
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write('{"step": 6, "epo')  # cut short by a kill
    run(Watch(tmp_path, step=3), 4, start=4)
    assert [r["step"] for r in read_steps(tmp_path / "steps.jsonl")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_summary_has_the_means_and_rates_since_the_last_one(tmp_path, caplog):
    caplog.set_level(logging.INFO, "todm_sb")
    writer = Writer()
    watch = Watch(tmp_path, writer=writer, interval=60.0)
    run(watch, 4)
    assert not caplog.messages
    watch.since -= 60.0
    run(watch, 1, start=5)
    (line,) = caplog.messages
    assert line.startswith("step 5, epoch 1: max 3, ")
    assert writer.scalars["steps/max", 5] == 3.0
    assert writer.scalars["steps/utterances a second", 5] == pytest.approx(20 / 60, rel=0.05)
    assert writer.scalars["steps/audio hours an hour", 5] == pytest.approx(37.5 / 60, rel=0.05)
    run(watch, 1, start=6)
    watch.summarise(6, 1)
    assert writer.scalars["steps/max", 6] == 6.0
    watch.summarise(6, 1)
    assert len(caplog.messages) == 2


def test_what_is_not_finite_is_null_and_not_in_the_means(tmp_path):
    writer = Writer()
    watch = Watch(tmp_path, writer=writer)
    for step, value in enumerate([2.0, float("nan"), float("inf"), 4.0], 1):
        watch.record(step, 1, {"max": value, "losses": [1.0, value]}, 1, 1.0)
    watch.summarise(4, 1)
    assert writer.scalars["steps/max", 4] == 3.0
    records = read_steps(tmp_path / "steps.jsonl")
    assert [r["max"] for r in records] == [2.0, None, None, 4.0]
    assert records[1]["losses"] == [1.0, None]


def losses(transducer, kd=None, **notes):
    terms = {"transducer": transducer, "ctc": 2 * transducer, "kd": kd}
    terms = {name: x for name, x in terms.items() if x is not None}
    notes = {name.replace("_", " "): x for name, x in notes.items()}
    return SubnetNumbers(terms["transducer"], terms, notes)


SUBNETS = [
    SubnetConfig((0, 1, 2), ffn_dims=(8, 8, 8)),
    SubnetConfig((1,), ffn_dims=(4,)),
    SubnetConfig((0, 2), ffn_dims=(4, 8)),
    SubnetConfig((2,), ffn_dims=(8,)),
]
LOSSES = [
    losses(1.0),
    losses(8.0, 3.0, left=0.25, far_right=0.75),
    losses(4.0, 2.0, left=0.5, far_right=0.5),
    losses(6.0, 1.0, left=0.0, far_right=1.0),
]


def test_each_subnet_of_a_step_is_told_with_its_size():
    assert values_of_subnets(SUBNETS, LOSSES) == {
        "losses": [1.0, 8.0, 4.0, 6.0],
        "ctc": [2.0, 16.0, 8.0, 12.0],
        "divergences": [3.0, 2.0, 1.0],
        "layers": [3, 1, 2, 1],
        "FFN": [24, 4, 12, 8],
        "max": 1.0,
        "min": 8.0,
        "random": 5.0,
        "random layers": 1.5,
        "random FFN": 10.0,
        "kd": 2.0,
        "left": 0.25,
        "far right": 0.75,
    }


def test_a_step_of_max_alone_and_a_divergence_without_notes_tell_no_more_than_they_have():
    alone = values_of_subnets(SUBNETS[:1], LOSSES[:1])
    assert alone.keys() == {"losses", "ctc", "divergences", "layers", "FFN", "max"}
    kl = values_of_subnets(SUBNETS[:2], [LOSSES[0], losses(8.0, 3.0)])
    assert kl["kd"] == 3.0
    assert kl.keys() == alone.keys() | {"min", "kd"}


@pytest.mark.parametrize(("limit", "clipped"), [(4.9, 1.0), (5.1, 0.0)])
def test_a_gradient_is_told_with_its_norm_and_whether_it_was_clipped(limit, clipped):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    guard = GradientGuard(0)
    guard.passes([("weight", weight)])
    found = values_of_gradient(torch.optim.SGD([weight], lr=0.1), guard, limit)
    assert found == {"gradient norm": pytest.approx(5.0), "clipped": clipped, "left out": 0}


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1), ScaledAdam])
def test_a_step_that_was_left_out_is_told_without_the_numbers_of_the_one_before(make):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, guard = make([weight]), GradientGuard(1)
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    weight.grad = torch.tensor([3.0, torch.inf])
    assert not guard.passes([("weight", weight)])
    found = values_of_gradient(optimizer, guard, 5.0)
    assert not math.isfinite(found["gradient norm"])
    assert math.isnan(found["clipped"])
    assert found["left out"] == 1


def test_memory_is_that_of_the_process():
    assert 0.01 < memory() < 1000
