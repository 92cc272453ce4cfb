"""Eden follows its formula and survives a SpeechBrain checkpoint."""

from __future__ import annotations

import math

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer

from todm_sb.optim import Eden, ScaledAdam
from todm_sb.utils.errors import ConfigError


def make_optimizer(*lrs: float) -> ScaledAdam:
    return ScaledAdam([{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs])


@pytest.mark.parametrize(
    ("batch", "epoch", "expected"),
    [
        (0, 0, 0.5),  # warm-up starts at a half
        (250, 0, ((250**2 + 5000**2) / 5000**2) ** -0.25 * 0.75),
        (500, 0, ((500**2 + 5000**2) / 5000**2) ** -0.25),
        (5000, 0, 2**-0.25),
        (5000, 6, 2**-0.5),
        (7500, 1.5, (3.25**-0.25) * (1.0625**-0.25)),
        (100_000, 30, ((1e10 + 2.5e7) / 2.5e7) ** -0.25 * ((900 + 36) / 36) ** -0.25),
    ],
)
def test_the_rate_follows_the_formula(batch, epoch, expected):
    eden = Eden(0.045, lr_batches=5000, lr_epochs=6)
    eden.batch = batch
    eden.set_epoch(epoch)
    optimizer = make_optimizer(0.045)
    eden.apply(optimizer)
    assert eden.factor() == pytest.approx(expected, rel=1e-12)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.045 * expected, rel=1e-12)


def test_a_call_counts_a_batch_and_returns_old_and_new_rate():
    eden = Eden(1.0, lr_batches=1e9, lr_epochs=1e9, warmup_batches=4, warmup_start=0.2)
    optimizer = make_optimizer(1.0)
    assert eden.apply(optimizer) == (1.0, 0.2)
    rates = [eden(optimizer) for _ in range(5)]
    assert [old for old, _ in rates] == [0.2] + [new for _, new in rates[:-1]]
    assert [new for _, new in rates] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_the_last_epochs_cool_down():
    plain = Eden(1.0, lr_batches=10, lr_epochs=2)
    cooled = Eden(1.0, lr_batches=10, lr_epochs=2, cooldown_epoch=3, cooldown=0.3)
    for batch, epoch, share in ((5, 0, 1), (700, 3, 1), (700, 4, 0.3), (900, 5.5, 0.3**2.5)):
        for eden in (plain, cooled):
            eden.batch = batch
            eden.set_epoch(epoch)
        assert cooled.factor() == pytest.approx(share * plain.factor())


def test_a_training_shorter_than_its_cooldown_begins_at_the_full_rate():
    cooled = Eden(
        1.0, lr_batches=10, lr_epochs=2, warmup_batches=0, cooldown_epoch=-3, cooldown=0.5
    )
    assert cooled.factor() == 1.0
    cooled.set_epoch(1)
    assert cooled.factor() == pytest.approx(0.5 * (1 + 0.25) ** -0.25)


@pytest.mark.parametrize(
    "options",
    [
        {"cooldown": 0},
        {"cooldown": 2},
        {"cooldown": "x"},
        {"cooldown_epoch": math.nan},
        {"cooldown_epoch": "last"},
    ],
)
def test_a_cooldown_out_of_range_is_refused(options):
    with pytest.raises(ConfigError, match="Eden: cooldown"):
        Eden(1.0, 1, 1, **options)


def test_a_cooldown_may_never_come():
    rates = []
    for options in ({}, {"cooldown_epoch": None}, {"cooldown_epoch": math.inf}):
        eden = Eden(1.0, lr_batches=10, lr_epochs=2, cooldown=0.5, **options)
        eden.set_epoch(1000)
        rates.append(eden.factor())
    assert rates == [rates[0]] * 3
    assert rates[0] == pytest.approx(0.5 * (1 + 500**2) ** -0.25)


def test_no_warmup_is_a_length_of_zero():
    assert Eden(1.0, lr_batches=10, lr_epochs=10, warmup_batches=0).factor() == 1.0


def test_groups_keep_their_ratio_and_the_first_follows_lr_initial():
    optimizer = make_optimizer(0.03, 0.06, 0.003)
    eden = Eden(0.05, lr_batches=3, lr_epochs=3, warmup_batches=2)
    for _ in range(10):
        _, lr = eden(optimizer)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([lr, 2 * lr, lr / 10])
    assert lr == pytest.approx(0.05 * (109 / 9) ** -0.25)


def test_a_warmup_may_start_at_zero_but_an_optimizer_may_not():
    eden = Eden(1.0, lr_batches=1e9, lr_epochs=1e9, warmup_batches=4, warmup_start=0)
    optimizer = make_optimizer(0.5, 0.25)
    eden.apply(optimizer)
    rates = [eden(optimizer)[1] for _ in range(4)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.5)
    with pytest.raises(ConfigError, match="the optimizer's lr must be positive"):
        eden.apply(make_optimizer(0.0))


def test_a_rate_that_is_a_tensor_becomes_a_number():
    optimizer = ScaledAdam([torch.nn.Parameter(torch.ones(2))], lr=torch.tensor(0.5))
    eden = Eden(lr_initial=0.5, lr_batches=100, lr_epochs=4, warmup_batches=0)
    rates = [*eden.apply(optimizer), optimizer.param_groups[0]["lr"]]
    assert rates == [0.5, 0.5, 0.5]
    assert {type(rate) for rate in rates} == {float}


def test_a_checkpoint_brings_back_batch_epoch_and_ratios(tmp_path):
    def build() -> tuple[Eden, ScaledAdam, Checkpointer]:
        eden, optimizer = Eden(0.05, lr_batches=7, lr_epochs=2), make_optimizer(0.05, 0.01)
        return eden, optimizer, Checkpointer(tmp_path, {"eden": eden, "optimizer": optimizer})

    eden, optimizer, checkpointer = build()
    eden.set_epoch(1.25)
    for _ in range(11):
        eden(optimizer)
    checkpointer.save_checkpoint()
    resumed, resumed_optimizer, checkpointer = build()
    checkpointer.recover_if_possible()

    assert (resumed.batch, resumed.epoch) == (11, 1.25)
    assert resumed(resumed_optimizer) == eden(optimizer)
    assert [g["lr"] for g in resumed_optimizer.param_groups] == [
        g["lr"] for g in optimizer.param_groups
    ]


def test_both_are_named_in_yaml_as_speechbrain_does():
    hparams = load_hyperpyyaml("""
        opt_class: !name:todm_sb.optim.ScaledAdam
            lr: 0.045
        schedule: !new:todm_sb.optim.Eden
            lr_initial: 0.045
            lr_batches: 5000
            lr_epochs: 6
    """)
    optimizer = hparams["opt_class"](torch.nn.Linear(2, 2).parameters())
    assert hparams["schedule"](optimizer)[0] == 0.045


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_initial", 0.0),
        ("lr_batches", 0),
        ("lr_epochs", -1),
        ("warmup_batches", -1),
        ("warmup_start", 1.5),
    ],
)
def test_an_argument_out_of_range_is_named(name, value):
    arguments = {"lr_initial": 1.0, "lr_batches": 1, "lr_epochs": 1, name: value}
    with pytest.raises(ValueError, match=f"{name} must"):
        Eden(**arguments)


def test_a_negative_epoch_is_refused():
    with pytest.raises(ValueError, match="epoch must"):
        Eden(1.0, lr_batches=1, lr_epochs=1).set_epoch(-1)
