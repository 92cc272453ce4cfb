"""Steps with a gradient that is not finite."""

import logging

import pytest
import torch
from torch import nn

from todm_sb.training.guard import GradientGuard
from todm_sb.utils.errors import TrainingError


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model(torch.ones(1, 2)).sum().backward()
    return model


def test_finite_gradients_pass_and_none_is_no_gradient(model):
    guard = GradientGuard(0)
    assert guard.passes(model.named_parameters())
    model.zero_grad(set_to_none=True)
    assert guard.passes(model.named_parameters())
    assert (guard.in_a_row, guard.left_out) == (0, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_gradient_is_counted_and_named(model, caplog, bad):
    guard = GradientGuard(3)
    model[1].weight.grad[0, 2] = bad
    with caplog.at_level(logging.WARNING):
        assert not guard.passes(model.named_parameters())
    assert "gradient of 1.weight is not finite" in caplog.text
    model[1].weight.grad.zero_()
    assert guard.passes(model.named_parameters())
    assert (guard.in_a_row, guard.left_out) == (0, 1)


def test_the_norm_is_that_of_all_gradients_together(model):
    guard = GradientGuard(0)
    guard.passes(model.named_parameters())
    everything = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert guard.norm == pytest.approx(float(everything.norm()))


def test_too_many_in_a_row_end_the_training_with_advice(model):
    guard = GradientGuard(2)
    model[0].bias.grad.fill_(float("nan"))
    for _ in range(2):
        assert not guard.passes(model.named_parameters())
    with pytest.raises(TrainingError, match=r"3 steps in a row .* 0\.bias: lower lr.*check-data"):
        guard.passes(model.named_parameters())


def test_the_counts_survive_a_restart(model, tmp_path):
    guard = GradientGuard(5)
    model[0].bias.grad.fill_(float("nan"))
    guard.passes(model.named_parameters())
    guard.save(tmp_path / "guard")
    again = GradientGuard(5)
    again.load(tmp_path / "guard", end_of_epoch=False)
    assert (again.in_a_row, again.left_out) == (1, 1)
