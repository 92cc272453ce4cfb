"""How distillation pulls, against gradients of losses that are put together from public parts."""

import weakref

import pytest
import torch
from test_sandwich import (
    LABELS,
    LENGTHS,
    SUBNETS,
    explicit_losses,
    features,
    gradients,
    step,
)

from todm_sb.losses.distillation import AlphaDivergence
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.pull import distillation_pull
from todm_sb.supernet.schedule import Schedule
from todm_sb.supernet.trunk import Trunk
from todm_sb.utils.errors import ConfigError


def pull(model, objective, **options):
    dtype = next(model.parameters()).dtype
    trunk = Trunk.compute(model, features(dtype), LENGTHS, LABELS.ids)
    return distillation_pull(objective, model, trunk.cut(), LABELS, *SUBNETS[:2], **options)


def test_the_pull_is_that_of_the_two_gradients(make_transducer):
    model = make_transducer(ctc=True, dtype=torch.double)
    *_, teacher = explicit_losses(model, SUBNETS[0], "occupancy")
    seen = []
    hook = model.joiner.project_encoder.register_forward_hook(lambda *a: seen.append(a[-1]))
    transducer, ctc, kl, _ = explicit_losses(model, SUBNETS[1], "occupancy", teacher)
    hook.remove()
    layers = dict(model.encoder.layers.named_parameters())
    # The kernels of the SSMs and the projected predictor are of the trunk, which subnets share.
    wanted = {name: p for name, p in layers.items() if "_ssms." not in name}
    joiner = [*model.joiner.project_encoder.parameters(), *model.joiner.output.parameters()]
    expected = {}
    for place, tensors in {
        "projected": seen,
        "joiner": joiner,
        "encoder": wanted.values(),
    }.items():
        tensors, flat = list(tensors), []
        for loss in (0.7 * kl, transducer + 0.3 * ctc):
            found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
            flat.append([x for g in found if g is not None for x in g.flatten().tolist()])
        a, b = torch.tensor(flat)
        expected[f"kd ratio {place}"] = float((a @ a / (b @ b)).sqrt())
        expected[f"kd cosine {place}"] = float(a @ b / (a @ a * (b @ b)).sqrt())

    found = pull(model, Objective(0.3, 0.7, divergence=AlphaDivergence((1,))))
    assert {name: float(x) for name, x in found.items()} == pytest.approx(expected, rel=1e-4)
    assert all(p.grad is None for p in model.parameters())


def test_what_is_frozen_is_not_pulled_at(make_transducer):
    model, objective = make_transducer(ctc=True), Objective(0.3, 0.7)
    everywhere = pull(model, objective)
    model.joiner.requires_grad_(False)
    expected = {name: x for name, x in everywhere.items() if not name.endswith(" joiner")}
    torch.testing.assert_close(pull(model, objective), expected)
    model.encoder.requires_grad_(False)
    assert pull(model, objective) == {}


def test_the_teachers_graph_is_gone_before_the_students_is_built(make_transducer):
    model, encoded, alive = make_transducer(ctc=True), [], []

    def seen(module, inputs):
        alive.append(sum(x() is not None for x in encoded))
        encoded.append(weakref.ref(inputs[0]))

    model.joiner.project_encoder.register_forward_pre_hook(seen)
    pull(model, Objective(0.3, 0.7))
    assert alive == [0, 0]


def test_the_pull_is_in_proportion_to_the_weight(make_transducer):
    model = make_transducer(ctc=True)
    one = pull(model, Objective(0.3, 1.0))
    rising = pull(model, Objective(0.3, Schedule(0.0, 1.0, 0, 10)), batches=2)
    for name, value in one.items():
        scale = 0.2 if "ratio" in name else 1.0
        torch.testing.assert_close(rising[name], scale * value, rtol=1e-4, atol=1e-6)


def test_the_student_s_own_losses_are_compared_with_where_they_are_not_trained_for(make_transducer):
    model = make_transducer(ctc=True)
    once = pull(model, Objective(0.3, 0.7))
    for weight in (0.0, 0.5):
        assert pull(model, Objective(0.3, 0.7, student_weight=weight)) == once


def test_dropout_draws_what_it_would_without(make_transducer):
    model = make_transducer().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    torch.manual_seed(3)
    pull(model, Objective(kd_weight=1.0))
    got = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(got, torch.rand(4))


def test_a_student_may_learn_from_its_teacher_alone(make_transducer):
    model = make_transducer(ctc=True, dtype=torch.double)
    subnets = SUBNETS[:2]
    losses = step(model, Objective(0.3, 2.0, student_weight=0.0), subnets)
    alone = gradients(model)
    assert losses[1].terms.keys() == {"transducer", "ctc", "kd"}
    assert losses[1].total.item() == pytest.approx(2 * losses[1].terms["kd"].item())
    assert losses[0].total.item() == pytest.approx(
        (losses[0].terms["transducer"] + 0.3 * losses[0].terms["ctc"]).item()
    )

    step(model, Objective(0.3, 2.0), subnets)
    both = gradients(model)
    # The student's own losses are what is missing.
    trunk = Trunk.compute(model, features(torch.double), LENGTHS, LABELS.ids)
    own, _ = Objective(0.3, 0.0)(model, trunk, LABELS, subnets[1])
    own.total.backward()
    for name, grad in gradients(model).items():
        if grad is not None and "_ssms." not in name:
            torch.testing.assert_close(both[name] - alone[name], grad, rtol=1e-4, atol=1e-6)


def test_without_a_teacher_a_student_learns_by_itself(make_transducer):
    model = make_transducer(ctc=True)
    plain = step(model, Objective(0.3, 0.0), SUBNETS)
    untaught = step(
        model, Objective(0.3, Schedule(0.0, 1.0, 5, 10), student_weight=0.0), SUBNETS, batches=3
    )
    assert [x.total for x in untaught] == [x.total for x in plain]


def test_a_negative_student_weight_is_refused():
    with pytest.raises(ConfigError, match="student_weight"):
        Objective(student_weight=-1.0)
