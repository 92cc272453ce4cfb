"""ScaledAdam does what its definition says, step by step, and behaves as a torch optimizer."""

from __future__ import annotations

import copy
import io
import logging
import math

import pytest
import torch
from torch import Tensor

from todm_sb.optim import ScaledAdam, scaled_adam


class Reference:
    """The definition, one tensor and one rule at a time, in plain and slow steps.

    ``seen`` collects the branches that a run took.
    """

    def __init__(
        self,
        params: list[Tensor],
        lr=0.03,
        clipping_scale=2.0,
        betas=(0.9, 0.98),
        scalar_lr_scale=0.1,
        eps=1e-8,
        param_min_rms=1e-5,
        param_max_rms=3.0,
        scalar_max=10.0,
        size_update_period=4,
        clipping_update_period=100,
    ):
        self.params = [p.detach().clone().double() for p in params]
        self.lr, self.betas, self.eps = lr, betas, eps
        self.clipping_scale, self.clipping_period = clipping_scale, clipping_update_period
        self.scalar_lr_scale, self.scalar_max = scalar_lr_scale, scalar_max
        self.min_rms, self.max_rms, self.size_period = (
            param_min_rms,
            param_max_rms,
            size_update_period,
        )
        self.t = 0  # steps done
        self.seen = set()
        self.threshold = None
        self.ring = [0.0] * clipping_update_period  # gradient norms, at t modulo the period
        self.delta = [torch.zeros_like(p) for p in self.params]
        self.v = [torch.zeros_like(p) for p in self.params]
        self.r = [p.square().mean().sqrt().item() for p in self.params]
        self.w = [0.0] * len(self.params)
        self.h = [[0.0] * size_update_period for _ in self.params]

    def step(self, grads: list[Tensor]) -> None:
        clip = self.clip_factor(grads)
        for i, grad in enumerate(grads):
            grad = clip * grad.double()
            if self.params[i].numel() == 1:
                self.step_scalar(i, grad)
            else:
                self.step_tensor(i, grad)
        self.t += 1

    def clip_factor(self, grads: list[Tensor]) -> float:
        if self.clipping_scale is None or self.t == 0:
            return 1.0
        total = 0.0
        for p, r, grad in zip(self.params, self.r, grads, strict=True):
            weight = self.scalar_lr_scale if p.numel() == 1 else r
            total += (weight * grad.double()).square().sum().item()
        norm = math.sqrt(total)
        self.ring[self.t % self.clipping_period] = norm

        if self.t in (10, 20, 40) and self.t < self.clipping_period:
            norms = sorted(self.ring)[-self.t :]  # the others are not yet filled
            self.threshold = 2.0 * self.clipping_scale * norms[2 * (len(norms) // 4)]
            self.seen.add("early threshold")
        elif self.t % self.clipping_period == 0:
            norms = sorted(self.ring)
            middle = min(2 * (len(norms) // 4), len(norms) - 1)
            self.threshold = self.clipping_scale * norms[middle]
            self.seen.add("threshold")
        if self.threshold is None or norm <= self.threshold:
            return 1.0
        self.seen.add("clipped")
        return self.threshold / (norm + 1e-20)

    def step_tensor(self, i: int, grad: Tensor) -> None:
        beta1, beta2 = self.betas
        p = self.params[i]
        change = torch.zeros_like(p)

        self.h[i][self.t % self.size_period] = (p * grad).sum().item()
        if (self.t + 1) % self.size_period == 0:
            self.r[i] = p.square().mean().sqrt().item()
            if self.t > 0:
                change += p * self.size_step(i)

        self.v[i] = beta2 * self.v[i] + (1 - beta2) * grad**2
        correction = 1 - beta2 ** (self.t + 1)
        if correction < 0.99:
            v = self.v[i] / correction
        else:
            v = self.v[i]
            self.seen.add("bias correction over")
        change += -self.lr * max(self.r[i], self.min_rms) * grad / (v.sqrt() + self.eps)

        self.delta[i] = beta1 * self.delta[i] + (1 - beta1) * change
        self.params[i] = p + self.delta[i]

    def size_step(self, i: int) -> float:
        decay = self.betas[1] ** self.size_period
        mean_square = sum(h**2 for h in self.h[i]) / self.size_period
        self.w[i] = decay * self.w[i] + (1 - decay) * mean_square
        k = (self.t + 1) // self.size_period
        lr = self.lr * self.scalar_lr_scale * math.sqrt(1 - decay**k)
        step = -lr * sum(self.h[i]) / (math.sqrt(self.w[i]) + self.eps)
        if self.r[i] < self.min_rms:
            self.seen.add("below param_min_rms")
            return 0.0
        room = (self.max_rms - self.r[i]) / self.r[i]
        if step > room:
            self.seen.add("at param_max_rms")
            return room
        return step

    def step_scalar(self, i: int, grad: Tensor) -> None:
        beta1, beta2 = self.betas
        self.v[i] = beta2 * self.v[i] + (1 - beta2) * grad**2
        v = self.v[i] / (1 - beta2 ** (self.t + 1))
        change = -self.lr * self.scalar_lr_scale * grad / (v.sqrt() + self.eps)
        self.delta[i] = beta1 * self.delta[i] + (1 - beta1) * change
        if self.params[i].abs() > self.scalar_max:
            self.seen.add("at scalar_max")
        self.params[i] = self.params[i].clamp(-self.scalar_max, self.scalar_max) + self.delta[i]


def make_params(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    """Tensors that between them meet every rule: like and unlike shapes, both limits, scalars."""
    gen = torch.Generator().manual_seed(0)

    def normal(*shape: int, rms: float = 1.0) -> Tensor:
        return rms * torch.randn(shape, generator=gen, dtype=torch.float64)

    tensors = [
        normal(4, 3),
        normal(4, 3, rms=0.1),
        normal(4, 3, rms=0.01),
        normal(7),
        normal(2, 3, 2, 2, rms=0.3),
        torch.zeros(5, dtype=torch.float64),  # below param_min_rms
        torch.full((6,), 2.99, dtype=torch.float64),  # close to param_max_rms
        normal(1),
        normal(),
        torch.tensor([[-9.999]], dtype=torch.float64),  # close to scalar_max
    ]
    return [torch.nn.Parameter(t.to(dtype)) for t in tensors]


def make_grads(step: int) -> list[Tensor]:
    """Gradients of a step: the last tensors are pushed outwards, and some steps are spikes."""
    gen = torch.Generator().manual_seed(1000 + step)
    size = 30.0 if step % 17 == 16 else 1.0 + 0.5 * math.sin(step)
    grads = []
    for i, p in enumerate(make_params()):
        grad = torch.randn(p.shape, generator=gen, dtype=torch.float64)
        if i == 6:
            grad = 0.3 * grad - 1.0
        if i == 9:
            grad = 0.3 * grad + 1.0
        grads.append(size * grad)
    grads[1] = grads[1].t().contiguous().t()  # gradients need not be contiguous
    return grads


def set_grads(params: list[torch.nn.Parameter], grads: list[Tensor]) -> None:
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.to(p.dtype)


def run(optimizer: ScaledAdam, params: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        set_grads(params, make_grads(step))
        optimizer.step()


def assert_same(left: list[Tensor], right: list[Tensor]) -> None:
    """Equality to the last bit."""
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a, b)


EVERY_BRANCH = {
    "early threshold",
    "threshold",
    "clipped",
    "bias correction over",
    "below param_min_rms",
    "at param_max_rms",
    "at scalar_max",
}


@pytest.mark.parametrize(
    ("options", "steps", "branches"),
    [
        ({}, 240, EVERY_BRANCH),
        ({"clipping_update_period": 20, "betas": (0.8, 0.95)}, 200, EVERY_BRANCH),
        (
            {
                "clipping_update_period": 7,
                "clipping_scale": 1.1,
                "size_update_period": 3,
                "lr": 0.1,
            },
            200,
            EVERY_BRANCH - {"early threshold", "bias correction over"},
        ),
        (
            {"clipping_update_period": 2, "size_update_period": 1, "scalar_lr_scale": 0.5},
            200,
            EVERY_BRANCH - {"early threshold", "bias correction over"},
        ),
        (
            {"clipping_scale": None, "eps": 1e-3},
            200,
            {"below param_min_rms", "at param_max_rms", "at scalar_max"},
        ),
    ],
    ids=["defaults", "period-20", "period-7", "periods-2-and-1", "no-clipping"],
)
@pytest.mark.parametrize("chunk", [1 << 18, 13], ids=["one-chunk", "many-chunks"])
def test_every_step_equals_the_definition(options, steps, branches, chunk, monkeypatch):
    monkeypatch.setattr(scaled_adam, "_CPU_CHUNK", chunk)
    params = make_params()
    reference = Reference(params, **options)
    optimizer = ScaledAdam(params, **options)
    for step in range(steps):
        grads = make_grads(step)
        reference.step(grads)
        set_grads(params, grads)
        optimizer.step()
        for p, expected in zip(params, reference.params, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-10)
    assert reference.seen == branches


@pytest.mark.parametrize("dots", [scaled_adam._dots, scaled_adam._batched_dots])
def test_scalar_products_are_sums_of_products(dots):
    """Also where the terms cancel, to the rounding of the terms."""
    params, grads = make_params(), make_grads(0)
    params.append(torch.randn(30_000, dtype=torch.float64))
    grads.append(torch.randn(30_000, dtype=torch.float64))
    for p, grad, got in zip(params, grads, dots(params, grads), strict=True):
        terms = (p.detach() * grad).flatten().tolist()
        assert abs(got.item() - math.fsum(terms)) <= 1e-12 * math.fsum(map(abs, terms))


def test_the_batched_scalar_products_of_accelerators_lead_to_the_same_steps(monkeypatch):
    params, twin = make_params(), make_params()
    run(ScaledAdam(params), params, range(12))
    monkeypatch.setattr(scaled_adam, "_dots", scaled_adam._batched_dots)
    run(ScaledAdam(twin), twin, range(12))
    for p, other in zip(params, twin, strict=True):
        torch.testing.assert_close(p, other, rtol=1e-11, atol=1e-11)


def test_float32_stays_close_to_the_definition():
    params = make_params(torch.float32)
    reference = Reference(params)
    optimizer = ScaledAdam(params)
    for step in range(100):
        reference.step(make_grads(step))
    run(optimizer, params, range(100))
    for p, expected in zip(params, reference.params, strict=True):
        torch.testing.assert_close(p.detach().double(), expected, rtol=1e-4, atol=1e-5)


def test_a_tensor_of_another_size_makes_the_same_relative_moves():
    """θ -> cθ with g -> g/c is the same problem in other units; only ε and limits see the unit."""
    theta = make_params()[0].detach()
    one, other = torch.nn.Parameter(theta.clone()), torch.nn.Parameter(0.01 * theta)
    optimizers = [ScaledAdam([p], eps=1e-30) for p in (one, other)]
    for step in range(60):
        grad = make_grads(step)[0]
        one.grad, other.grad = grad, grad / 0.01
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(other.detach(), 0.01 * one.detach(), rtol=1e-9, atol=0)


# Size updates end at 4, 8, ... 32 steps; thresholds are set at 10, 20, 40, 50, 100...
@pytest.mark.parametrize("stop", [1, 9, 32, 41, 126])
def test_a_run_goes_on_bit_for_bit_from_a_saved_state(stop):
    def build() -> tuple[list[torch.nn.Parameter], ScaledAdam]:
        params = make_params(torch.float32)
        groups = [{"params": params[:4]}, {"params": params[4:], "lr": 0.01}]
        return params, ScaledAdam(groups, clipping_update_period=50)

    params, optimizer = build()
    run(optimizer, params, range(stop))
    file = io.BytesIO()
    torch.save({"params": params, "optimizer": optimizer.state_dict()}, file)
    run(optimizer, params, range(stop, stop + 60))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed_params, resumed = build()
    with torch.no_grad():
        for p, value in zip(resumed_params, saved["params"], strict=True):
            p.copy_(value)
    resumed.load_state_dict(saved["optimizer"])
    run(resumed, resumed_params, range(stop, stop + 60))

    assert_same(resumed_params, params)
    assert resumed.clipping_stats() == optimizer.clipping_stats()


def test_a_deep_copy_of_the_state_is_not_touched_by_later_steps():
    params = make_params()
    optimizer = ScaledAdam(params)
    run(optimizer, params, range(25))
    values = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state_dict())
    run(optimizer, params, range(25, 50))
    expected = [p.detach().clone() for p in params]

    with torch.no_grad():
        for p, value in zip(params, values, strict=True):
            p.copy_(value)
    optimizer.load_state_dict(state)
    run(optimizer, params, range(25, 50))
    assert_same(params, expected)


def test_a_group_moves_as_under_an_optimizer_of_its_own():
    together, apart = make_params(), make_params()
    optimizer = ScaledAdam(
        [{"params": together[:5]}, {"params": together[5:], "lr": 0.2, "clipping_scale": 1.5}]
    )
    first = ScaledAdam(apart[:5])
    second = ScaledAdam(apart[5:], lr=0.2, clipping_scale=1.5)
    for step in range(50):
        set_grads(together, make_grads(step))
        set_grads(apart, make_grads(step))
        optimizer.step()
        first.step()
        second.step()
    assert_same(together, apart)


def test_a_group_added_later_starts_at_its_own_first_step():
    params, late = make_params(), make_params()
    optimizer = ScaledAdam(params, clipping_update_period=15)
    run(optimizer, params, range(33))
    optimizer.add_param_group({"params": late})
    for step in range(20):
        set_grads(late, make_grads(step))
        optimizer.step()

    expected = make_params()
    run(ScaledAdam(expected, clipping_update_period=15), expected, range(20))
    assert_same(late, expected)


def test_a_parameter_without_gradient_sleeps_through_the_step():
    """It and its momentum stay as they are, and it goes on as if the step had not been."""
    awake, sleeper, alone = (torch.nn.Parameter(make_params()[i].detach()) for i in (0, 1, 1))
    optimizer = ScaledAdam([awake, sleeper], clipping_scale=None)
    steady = ScaledAdam([alone], clipping_scale=None)
    for step in range(40):
        grads = make_grads(step)
        awake.grad = grads[0]
        if step % 3 == 1:
            sleeper.grad = None
            before = sleeper.detach().clone()
            optimizer.step()
            assert torch.equal(sleeper, before)
        else:
            sleeper.grad = alone.grad = grads[1]
            optimizer.step()
            steady.step()
    assert torch.equal(sleeper, alone)


def test_without_any_gradient_nothing_happens():
    params = make_params()
    optimizer = ScaledAdam(params)
    optimizer.zero_grad()
    optimizer.step()
    assert_same(params, make_params())
    assert not optimizer.state


@pytest.mark.parametrize("period", [3, 7, 40, 150])
@pytest.mark.parametrize("shape", [(5,), ()])
def test_a_group_that_seldom_gets_a_gradient_moves_whenever_it_does(period, shape):
    """It takes no share in the losses of most steps: the gradient is zero there, not missing."""
    p = torch.nn.Parameter(torch.full(shape, 0.5, dtype=torch.float64))
    optimizer = ScaledAdam([p], lr=0.01)
    for step in range(1000):
        gradient = 100.0 if step % period == period - 1 else 0.0
        p.grad = torch.full(shape, gradient, dtype=torch.float64)
        before = p.detach().clone()
        optimizer.step()
        if gradient:
            assert (p < before).all()
    assert p.max() < 0.48
    # All these gradients are alike: none is a spike.
    assert optimizer.clipping_stats()[0]["clipped"] == 0


def test_a_spike_is_clipped_where_most_gradients_are_zero():
    p = torch.nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64))
    optimizer = ScaledAdam([p], lr=0.0, clipping_update_period=12)
    for step in range(20):
        size = {19: 100.0}.get(step, float(step % 3 == 0))
        p.grad = torch.full((4,), size, dtype=torch.float64)
        optimizer.step()
    assert optimizer.clipping_stats() == [{"grad_norm": 100.0, "threshold": 2.0, "clipped": 0.05}]


def test_without_a_gradient_so_far_there_is_nothing_to_clip_by():
    p = torch.nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64))
    optimizer = ScaledAdam([p], clipping_update_period=12)
    for _ in range(30):
        p.grad = torch.zeros(4, dtype=torch.float64)
        optimizer.step()
    assert optimizer.clipping_stats() == [{"grad_norm": 0.0, "threshold": math.inf, "clipped": 0.0}]
    assert torch.equal(p, torch.full_like(p, 0.5))


def test_as_long_as_most_gradients_are_not_zero_the_threshold_is_the_definitions():
    """Zeros count in the median there."""
    params, reference = make_params(), Reference(make_params(), clipping_update_period=10)
    optimizer = ScaledAdam(params, clipping_update_period=10)
    for step in range(60):
        grads = [grad * (step % 5 not in (1, 3)) for grad in make_grads(step)]
        reference.step(grads)
        set_grads(params, grads)
        optimizer.step()
        for p, expected in zip(params, reference.params, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-10)
    assert "clipped" in reference.seen


@pytest.mark.parametrize("lr", [torch.tensor(0.01, dtype=torch.float64), torch.tensor([0.01])])
def test_a_learning_rate_may_be_a_tensor_as_of_any_torch_optimizer(lr):
    params, twin = make_params(), make_params()
    optimizer, plain = ScaledAdam(params, lr=lr), ScaledAdam(twin, lr=lr.item())
    run(optimizer, params, range(30))
    run(plain, twin, range(30))
    assert_same(params, twin)
    lr.fill_(0.002)  # as torch's schedulers set it
    plain.param_groups[0]["lr"] = lr.item()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, params, range(30, 40))
    run(plain, twin, range(30, 40))
    assert_same(params, twin)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-5, 1.0, 1e4])
def test_half_precision_is_float32_rounded(dtype, size):
    """Squares of such gradients, ε, and norms are beyond the range of float16."""
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(30, 40, generator=gen).to(dtype)
    half, single = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    optimizer, twin = ScaledAdam([half]), ScaledAdam([single])
    for step in range(60):
        if step == 30:
            state = io.BytesIO()
            torch.save(optimizer.state_dict(), state)
            state.seek(0)
            optimizer = ScaledAdam([half])
            optimizer.load_state_dict(torch.load(state, weights_only=True))
        half.grad = (size * torch.randn(30, 40, generator=gen)).to(dtype)
        single.grad = half.grad.float()
        optimizer.step()
        twin.step()
        with torch.no_grad():
            single.copy_(single.to(dtype))
        assert torch.equal(half.float(), single)
    assert (half - start).abs().max() > 0.1


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("at", [0, 5, 63])
def test_a_step_with_a_gradient_that_is_not_finite_never_was(bad, at, caplog):
    params, twin = make_params(), make_params()
    groups = [{"params": params[:3]}, {"params": params[3:]}]
    optimizer = ScaledAdam(groups, clipping_update_period=50)
    steady = ScaledAdam([{"params": twin[:3]}, {"params": twin[3:]}], clipping_update_period=50)
    run(optimizer, params, range(at))
    grads = make_grads(at)
    grads[4].view(-1)[7] = bad
    set_grads(params, grads)
    with caplog.at_level(logging.WARNING):
        optimizer.step()
    assert "not finite" in caplog.text
    run(optimizer, params, range(at, at + 60))

    run(steady, twin, range(at + 60))
    assert_same(params, twin)
    assert optimizer.clipping_stats() == steady.clipping_stats()


def test_a_spike_moves_no_further_than_its_clipped_self():
    """After clipping, gradients of a hundred and of ten thousand times the usual are the same."""
    ends = []
    for spike in (1e2, 1e4):
        params = make_params()
        optimizer = ScaledAdam(params, clipping_update_period=20)
        run(optimizer, params, range(12))
        set_grads(params, [spike * grad for grad in make_grads(12)])
        optimizer.step()
        ends.append(params)
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_clipping_stats_tell_norm_threshold_and_share_of_clipped_steps():
    p = torch.nn.Parameter(torch.full((4,), 0.5, dtype=torch.float64))
    optimizer = ScaledAdam([p], lr=0.0, clipping_update_period=12)
    assert math.isnan(optimizer.clipping_stats()[0]["grad_norm"])
    for step in range(20):
        p.grad = torch.full((4,), 100.0 if step == 19 else 1.0, dtype=torch.float64)
        optimizer.step()
    # RMS 0.5 times a gradient norm of 2 (then 200); the median is 1, and 2.0 times that the limit.
    assert optimizer.clipping_stats() == [{"grad_norm": 100.0, "threshold": 2.0, "clipped": 0.05}]


def test_a_regression_is_learned():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = ScaledAdam(model.parameters())  # an iterator, as SpeechBrain passes it
    x = torch.randn(64, 8)
    y = x[:, :1] - 0.5 * x[:, 1:2]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(150)]
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -0.1),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "0.03"),
        ("lr", torch.tensor([0.03, 0.1])),
        ("lr", torch.tensor(-0.03)),
        ("lr", torch.tensor(0.03j)),
        ("clipping_scale", 0.0),
        ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.98)),
        ("betas", 0.9),
        ("betas", (0.9,)),
        ("scalar_lr_scale", -1.0),
        ("eps", 0.0),
        ("param_min_rms", 0.0),
        ("param_max_rms", 1e-6),
        ("scalar_max", 0.0),
        ("size_update_period", 0),
        ("size_update_period", 2.5),
        ("clipping_update_period", 0),
    ],
)
def test_an_option_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        ScaledAdam(make_params(), **{name: value})
    with pytest.raises(ValueError, match=f"{name} must be"):
        ScaledAdam([{"params": make_params(), name: value}])


def test_complex_parameters_and_sparse_gradients_are_refused():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = ScaledAdam([p])
    with pytest.raises(ValueError, match="complex"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2) * 1j)]})
    assert len(optimizer.param_groups) == 1
    p.grad = torch.ones(3).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
