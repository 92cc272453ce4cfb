"""Dropout: the shares, the scale, the gradient, and where its masks come from."""

import pytest
import torch
import torch.nn.functional as F

from todm_sb.nnet.dropout import LEVELS, dropout
from todm_sb.utils.device_kind import counted_for


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.5, 0.93])
def test_elements_are_dropped_with_the_probability_and_the_others_scaled(p):
    torch.manual_seed(0)
    x = torch.ones(400_000)
    y = dropout(x, p, True)
    kept = y != 0
    # Each of the four that share a random number is as likely as the others; 5 standard errors.
    share = kept.view(-1, 4).double().mean(0)
    assert torch.all((share - (1 - p)).abs() < 5 * (p * (1 - p) / 1e5) ** 0.5)
    torch.testing.assert_close(y[kept], x[kept] / (1 - round(p * LEVELS) / LEVELS))


def test_elements_are_dropped_independently_of_each_other():
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.3, True) == 0).view(-1, 4).double()
    covariance = torch.cov(torch.cat([dropped, dropped.roll(1, 0)], 1).T)
    off = covariance - torch.diag(covariance.diag())
    assert off.abs().max() < 5 * 0.3 * 0.7 / 1e5**0.5


@pytest.mark.parametrize("shape", [(3, 5, 7), (1,), (0, 4), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shape_and_type_stay(shape, dtype):
    x = torch.randn(shape, dtype=dtype)
    y = dropout(x, 0.5, True)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def test_the_gradient_is_that_of_the_mask():
    x = torch.randn(6, 50, requires_grad=True)
    y = dropout(x.transpose(0, 1), 0.375, True)  # not contiguous
    y.sum().backward()
    expected = torch.where(y != 0, 1 / 0.625, 0.0).T
    torch.testing.assert_close(x.grad, expected)


def test_the_seed_tells_the_mask():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(1000), 0.5, True) != 0)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_nothing_is_dropped_where_nothing_is_to_be():
    x = torch.randn(9)
    state = torch.get_rng_state()
    assert dropout(x, 0.5, False) is x
    assert torch.equal(dropout(x, 0.0, True), x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(dropout(x, 1.0, True), torch.zeros(9))


def test_a_probability_next_to_one_drops_nearly_all():
    y = dropout(torch.ones(1_000_000), 1 - 1e-9, True)
    assert 0 < (y != 0).sum() < 50
    assert y.mean() == pytest.approx(1, abs=1.3)  # five standard errors, of about 15 that are left


def test_an_accelerator_gets_its_own_kernel():
    x = torch.ones(1000)
    torch.manual_seed(0)
    with counted_for("cuda"):
        found = dropout(x, 0.3, True)
    torch.manual_seed(0)
    assert torch.equal(found, F.dropout(x, 0.3, True))
