"""Sums of gradients are those that autograd makes itself."""

import torch
from torch import nn

from todm_sb.supernet import gradients as module
from todm_sb.supernet.gradients import GradientSum


def test_it_is_the_sum_that_autograd_makes(monkeypatch):
    monkeypatch.setattr(module, "LEFT_TO_AUTOGRAD", {})
    weights = [nn.Parameter(torch.randn(4)) for _ in range(4)]
    weights[0].grad = torch.ones(4)  # of an earlier batch

    def passes():
        yield weights[0] * weights[1]
        yield weights[1] ** 2 + weights[2]
        yield weights[0] ** 3

    for loss in passes():
        loss.sum().backward()
    expected = [None if w.grad is None else w.grad.clone() for w in weights]
    for w in weights:
        w.grad = None
    weights[0].grad = torch.ones(4)

    gradients = GradientSum(weights)
    for loss in passes():
        loss.sum().backward()
        gradients.take()
        assert all(w.grad is None for w in weights)
    weights[2].sum().backward()  # not taken yet
    expected[2] += 1
    gradients.give()
    for w, total in zip(weights, expected, strict=True):
        assert (w.grad is None and total is None) or torch.equal(w.grad, total)


def test_on_a_cpu_autograd_adds_in_place():
    weight = nn.Parameter(torch.randn(4))
    gradients = GradientSum([weight])
    (2 * weight).sum().backward()
    gradients.take()
    first = weight.grad
    (3 * weight).sum().backward()
    gradients.give()
    assert weight.grad is first
    assert weight.grad.tolist() == [5.0] * 4
