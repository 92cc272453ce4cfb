"""Which precision the parts of a step have, on any device."""

import pytest
import torch
from torch import nn

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.space import SubnetConfig
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

SUBNETS = [SubnetConfig((0, 1, 2, 3), ffn_dims=(12,) * 4), SubnetConfig((0, 2), ffn_dims=(4, 4))]
LABELS = Labels(torch.tensor([[3, 1, 6], [2, 5, 0]]), torch.tensor([3, 2]))
ENCODERS = {"mhssm": {}, "conformer": {"kind": "conformer", "n_heads": 2, "kernel_size": 3}}


def step(model):
    trunk = Trunk.compute(model, torch.randn(2, 40, 6), torch.tensor([40, 27]), LABELS.ids)
    objective = Objective(0.3, 1.0, AlphaDivergence())
    return sandwich_backward(model, objective, trunk, LABELS, SUBNETS)


def test_the_joiner_on_the_lattice_and_the_divergence_are_exempt_from_tf32(
    make_transducer, monkeypatch
):
    model, matmul, seen = make_transducer(ctc=True), torch.backends.cuda.matmul, []

    def note(original):
        def noted(*args, **options):
            seen.append((original.__name__, matmul.allow_tf32))
            return original(*args, **options)

        return noted

    for name in ("at_nodes", "gradient"):
        monkeypatch.setattr(AlphaDivergence, name, note(getattr(AlphaDivergence, name)))
    monkeypatch.setattr(torch, "addmm", note(torch.addmm))  # the joiner's output layer
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    try:
        step(model)
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before
    assert {name for name, _ in seen} == {"at_nodes", "gradient", "addmm"}
    assert not any(on for _, on in seen)


@pytest.mark.parametrize("kind", ENCODERS)
def test_under_autocast_the_residual_stream_keeps_the_weights_precision(make_transducer, kind):
    model, seen = make_transducer(ctc=True, **ENCODERS[kind]), []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda _, args, y: seen.append((args[0].dtype, y.dtype)))
    products = []
    for linear in (m for m in model.encoder.layers.modules() if type(m) is nn.Linear):
        linear.register_forward_hook(lambda _, args, y: products.append(y.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        step(model)
    assert len(seen) == 6  # layers of both subnets
    assert all(dtypes == (torch.float32, torch.float32) for dtypes in seen)
    assert torch.float32 not in products
