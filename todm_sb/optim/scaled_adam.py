"""ScaledAdam: Adam whose step follows the size of each tensor (Yao et al. 2023).

In arXiv:2310.11230, Sec. 3.5, a tensor θ has a size, its RMS r, and both are learned: θ by Adam
steps of a length proportional to r, and log r by Adam on its own gradient, h = Σ θ·∇θ. With g the
clipped gradient, at step t,

    v ← β2 v + (1 - β2) g²
    u = -lr · max(r, r_min) · g / (sqrt(v / (1 - β2^t)) + ε)  +  s · θ
    Δ ← β1 Δ + (1 - β1) u
    θ ← θ + Δ

where s, the change of log r, differs from zero once in a period of P steps (the k-th one here):

    w ← β2^P w + (1 - β2^P) mean h²                           over the P steps
    s = -lr · scalar_lr_scale · sqrt(1 - β2^(P k)) · Σ h / (sqrt(w) + ε)

The paper leaves some rules open (when r is measured, limits, scalars, clipping); for these the
definition is the authors' code of the paper's time, egs/librispeech/ASR/zipformer/optim.py in
k2-fsa/icefall, called "the release" below.
"""

from __future__ import annotations

import functools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from todm_sb.optim.options import check_options
from todm_sb.utils.errors import ConfigError

logger = logging.getLogger(__name__)

# Elements handled at a time on a CPU: a chunk's θ, g, Δ, v and one temporary (5 x 1 MiB in float32)
# stay in the cache over the eight or so passes of a step. A GPU gets all tensors in one go.
_CPU_CHUNK = 1 << 18

# The first clipping threshold need not wait for a whole period: the release sets one at these steps
# and, as norms still change fast then, doubles it.
_EARLY_STEPS = (10, 20, 40)


class ScaledAdam(Optimizer):
    """ScaledAdam with the release's rules for size, scalars and gradient clipping.

    **Size.** r is measured at the start and every ``size_update_period`` steps, just before s is
    applied. s is zero for a tensor below ``param_min_rms``, and it never takes a tensor beyond
    ``param_max_rms``.

    **Scalars** (one element) have no size of their own: plain Adam at ``lr · scalar_lr_scale``, the
    value clamped to ``±scalar_max`` before each step.

    **Clipping.** The norm of a group is that of r·g over its tensors (``scalar_lr_scale``·g for
    scalars). Gradients are scaled down to a norm of at most ``clipping_scale`` times the median
    norm of the last ``clipping_update_period`` steps; the median is taken at steps 10, 20 and 40
    and then once a period. As in the release each parameter group is clipped on its own, so that
    a model is clipped as a whole where it is one group.

    Three rules are ours. A parameter without gradient (``grad is None``) is left alone with its
    state, as in ``torch.optim``; the release takes it for a zero gradient (to get that,
    ``zero_grad(set_to_none=False)``). And a step in which any group's norm is not finite changes
    nothing at all and is logged; the release takes an infinite norm for zero gradients, lets NaN
    through, and counts both in the median. Where the median is zero, since most gradients were,
    that of the norms above zero takes its place, and nothing is clipped where there is none; the
    release would clip all that follows to nothing, for good.

    Parameters of half precision are moved in float32, which their state is of, and rounded.

    All numbers a checkpoint needs are in ``state_dict()``: a tensor's in its state, the clipping
    history in its group. The step reads one small vector, the gradient norms, back from the
    device (whether to skip the step is the host's decision), and the change of sizes one more.

    Args:
        params: parameters, named parameters or parameter groups, as for any torch optimizer.
        lr: learning rate, a number or a tensor of one; relative to the size of a tensor, hence
            larger than Adam's.
        clipping_scale: clip at this multiple of the median norm; ``None`` for no clipping.
        betas: decay of the momentum (β1) and of the mean square (β2).
        scalar_lr_scale: learning rate of sizes and scalars, as a share of ``lr``.
        eps: ε, against division by zero.
        param_min_rms: least RMS a tensor is taken to have.
        param_max_rms: RMS beyond which a tensor is not grown.
        scalar_max: bound on the absolute value of scalars.
        size_update_period: steps from one change of size to the next.
        clipping_update_period: norms in the median, and steps from one median to the next.

    Raises:
        ConfigError: an option is out of its range, or a parameter is complex.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 0.03,
        clipping_scale: float | None = 2.0,
        betas: tuple[float, float] = (0.9, 0.98),
        scalar_lr_scale: float = 0.1,
        eps: float = 1e-8,
        param_min_rms: float = 1e-5,
        param_max_rms: float = 3.0,
        scalar_max: float = 10.0,
        size_update_period: int = 4,
        clipping_update_period: int = 100,
    ) -> None:
        defaults = {
            "lr": lr,
            "clipping_scale": clipping_scale,
            "betas": betas,
            "scalar_lr_scale": scalar_lr_scale,
            "eps": eps,
            "param_min_rms": param_min_rms,
            "param_max_rms": param_max_rms,
            "scalar_max": scalar_max,
            "size_update_period": size_update_period,
            "clipping_update_period": clipping_update_period,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, with options of its own where given and a clipping history of its own.

        Args:
            param_group: ``{"params": ..., <option>: ...}``.

        Raises:
            ConfigError: an option is out of its range, or a parameter is complex.
        """
        check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if any(p.is_complex() for p in group["params"]):
            self.param_groups.pop()
            raise ConfigError("ScaledAdam: a parameter is complex; keep it as real and imaginary")
        # Plain numbers, so that any checkpoint keeps them exactly.
        group.update(step=0, grad_norm=math.nan, norms=[], threshold=math.inf, num_clipped=0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Args:
            closure: recomputes the loss and its gradients, where given.

        Returns:
            What ``closure`` returned, or ``None``.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        active = [
            (group, params)
            for group in self.param_groups
            if (params := [p for p in group["params"] if p.grad is not None and p.numel() > 0])
        ]
        grad_norms = self._grad_norms(active)

        if not all(map(math.isfinite, grad_norms)):
            logger.warning("ScaledAdam: a gradient is not finite; this step is skipped")
            return loss
        for (group, params), norm in zip(active, grad_norms, strict=True):
            clip = _clip_factor(group, norm)
            for step, chunk in self._chunks(params):
                self._update(group, chunk, step, clip)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Args:
            state_dict: what :meth:`state_dict` returned.
        """
        super().load_state_dict(state_dict)
        # torch has rounded it to its parameter's type, which may be of half precision.
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor):
                    self.state[p][name] = value.to(p.device, _wide(p))

    def clipping_stats(self) -> list[dict[str, float]]:
        """Numbers worth logging, one dict a parameter group.

        Returns:
            ``grad_norm``, the norm at the last step, before clipping (NaN before the first step);
            ``threshold``, above which norms are clipped (infinite before the first median);
            ``clipped``, the share of all steps so far that were clipped.
        """
        return [
            {
                "grad_norm": group["grad_norm"],
                "threshold": group["threshold"],
                "clipped": group["num_clipped"] / max(group["step"], 1),
            }
            for group in self.param_groups
        ]

    def _grad_norms(self, active: list[tuple[dict[str, Any], list[Tensor]]]) -> list[float]:
        """Norm of r·g over each group, before clipping; gives new parameters their state."""
        if any(p.grad.is_sparse for _, params in active for p in params):
            raise RuntimeError("ScaledAdam does not support sparse gradients")
        new = [(p, group) for group, params in active for p in params if p not in self.state]
        grads = [p.grad for _, params in active for p in params]
        found = iter(_norms([*(p for p, _ in new), *grads]))
        for p, group in new:
            self.state[p] = _new_state(p, _rms(next(found), p), group["size_update_period"])
        grad_norms = []
        for group, params in active:
            # Scalars have no r.
            rms = [self.state[p].get("param_rms", group["scalar_lr_scale"]) for p in params]
            grad_norms.append(math.hypot(*(r * next(found) for r in rms)))
        return grad_norms

    def _chunks(self, params: list[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        """Lists of tensors that one batched call can serve, with the step they have reached."""
        alike = defaultdict(list)
        for p in params:
            alike[p.device, p.dtype, p.numel() == 1, self.state[p]["step"]].append(p)
        for (device, _, _, step), bucket in alike.items():
            limit = _CPU_CHUNK if device.type == "cpu" else math.inf
            chunk, size = [], 0
            for p in bucket:
                if chunk and size + p.numel() > limit:
                    yield step, chunk
                    chunk, size = [], 0
                chunk.append(p)
                size += p.numel()
            yield step, chunk

    def _update(self, group: dict[str, Any], params: list[Tensor], step: int, clip: float) -> None:
        """Move tensors of one chunk; ``step`` counts from 0, gradients count ``clip`` times."""
        beta1, beta2 = group["betas"]
        states = [self.state[p] for p in params]
        grads = [p.grad for p in params]
        rounded, wide = params, _wide(params[0])
        if wide != rounded[0].dtype:
            params, grads = ([x.to(wide) for x in xs] for xs in (params, grads))
        deltas = [state["delta"] for state in states]
        exp_avg_sqs = [state["exp_avg_sq"] for state in states]
        bias2 = 1 - beta2 ** (step + 1)

        torch._foreach_mul_(deltas, beta1)
        if params[0].numel() == 1:
            scales = [group["scalar_lr_scale"]] * len(params)
            torch._foreach_clamp_min_(params, -group["scalar_max"])
            torch._foreach_clamp_max_(params, group["scalar_max"])
        else:
            self._update_size(group, states, params, grads, step, clip)
            scales = [max(state["param_rms"], group["param_min_rms"]) for state in states]
            if bias2 >= 0.99:  # the release drops the correction here, for all but scalars
                bias2 = 1.0

        # The clip factor and the bias correction are folded into the numbers of each call, as every
        # pass over the elements costs: g/(sqrt(v/b) + ε) = sqrt(b)·g/(sqrt(v) + ε·sqrt(b)).
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, value=(1 - beta2) * clip**2)
        denom = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_add_(denom, group["eps"] * math.sqrt(bias2))
        step_size = -float(group["lr"]) * (1 - beta1) * clip * math.sqrt(bias2)
        torch._foreach_addcdiv_(deltas, grads, denom, [step_size * scale for scale in scales])
        torch._foreach_add_(params, deltas)
        if params is not rounded:
            torch._foreach_copy_(rounded, params)
        for state in states:
            state["step"] = step + 1

    @staticmethod
    def _update_size(
        group: dict[str, Any],
        states: list[dict[str, Any]],
        params: list[Tensor],
        grads: list[Tensor],
        step: int,
        clip: float,
    ) -> None:
        """Note h of this step and, once a period, renew r and add (1 - β1)·θ·s to Δ."""
        period = group["size_update_period"]
        phase = step % period
        h = _dots(params, grads)
        torch._foreach_mul_(h, clip)
        torch._foreach_copy_([state["scale_grads"][phase] for state in states], h)
        if phase < period - 1:
            return

        # One transfer for both: (tensors, P) and (tensors, 1).
        h = torch.stack([state["scale_grads"] for state in states])
        norms = torch.stack(torch._foreach_norm(params))
        measured = torch.cat([h, norms.unsqueeze(1)], 1).to("cpu", torch.float64)
        rms = list(map(_rms, measured[:, -1].tolist(), params))
        for state, r in zip(states, rms, strict=True):
            state["param_rms"] = r
        if step == 0:  # reached with a period of 1 only; the release starts s one step later
            return

        beta1, beta2 = group["betas"]
        beta2 = beta2**period
        bias2 = 1 - beta2 ** ((step + 1) // period)
        r = torch.tensor(rms, dtype=torch.float64)
        w = torch.tensor([state["scale_exp_avg_sq"] for state in states], dtype=torch.float64)
        h = measured[:, :-1]
        w.lerp_(h.square().mean(dim=1), 1 - beta2)
        for state, value in zip(states, w.tolist(), strict=True):
            state["scale_exp_avg_sq"] = value

        size_lr = float(group["lr"]) * group["scalar_lr_scale"]
        s = -size_lr * math.sqrt(bias2) * h.sum(dim=1) / (w.sqrt() + group["eps"])
        s[r < group["param_min_rms"]] = 0.0
        s = torch.minimum(s, (group["param_max_rms"] - r) / r)
        growth = torch._foreach_mul(params, ((1 - beta1) * s).tolist())
        torch._foreach_add_([state["delta"] for state in states], growth)


def _wide(p: Tensor) -> torch.dtype:
    """What a tensor is computed with: its own type, but float32 at least."""
    return torch.promote_types(p.dtype, torch.float32)


def _new_state(p: Tensor, rms: float, size_update_period: int) -> dict[str, Any]:
    """State of a parameter before its first step; scalars have no size to keep."""
    state: dict[str, Any] = {
        "step": 0,
        "delta": torch.zeros_like(p, dtype=_wide(p)),  # Δ
        "exp_avg_sq": torch.zeros_like(p, dtype=_wide(p)),  # v
    }
    if p.numel() > 1:
        state["param_rms"] = rms  # r, of the last measurement
        state["scale_exp_avg_sq"] = 0.0  # w
        # h of this period's steps
        state["scale_grads"] = p.new_zeros(size_update_period, dtype=_wide(p))
    return state


def _norms(tensors: list[Tensor]) -> list[float]:
    """2-norms of tensors, brought to the host in one go."""
    if not tensors:
        return []
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    norms = torch._foreach_norm(tensors, dtype=dtype)
    return torch.stack([norm.to(norms[0].device) for norm in norms]).tolist()


def _rms(norm: float, tensor: Tensor) -> float:
    """Root mean square of a tensor of so large a 2-norm."""
    return norm / math.sqrt(tensor.numel())


def _dots(params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    """Scalar products, one a tensor."""
    if params[0].device.type != "cpu":
        return _batched_dots(params, grads)
    # The elements stay in the cache for the calls that follow.
    pairs = zip(params, grads, strict=True)
    return [torch.dot(p.reshape(-1), grad.reshape(-1)) for p, grad in pairs]


def _batched_dots(params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    """The same in few kernel launches: of batched sums torch has those of absolute values alone,
    and the sum of x is twice that of max(x, 0), less that of abs(x)."""
    products = torch._foreach_mul(params, grads)
    absolute = torch._foreach_norm(products, 1)
    torch._foreach_clamp_min_(products, 0.0)
    positive = torch._foreach_norm(products, 1)
    torch._foreach_add_(positive, positive)
    return list(torch._foreach_sub(positive, absolute))


def _clip_factor(group: dict[str, Any], norm: float) -> float:
    """Count one step of the group and return the factor, at most 1, for its gradients."""
    step, scale, period = group["step"], group["clipping_scale"], group["clipping_update_period"]
    group["step"], group["grad_norm"] = step + 1, norm
    if scale is None or step == 0:  # the release leaves the very first norm out of the history
        return 1.0
    norms = group["norms"]
    norms.append(norm)
    del norms[:-period]
    early = step in _EARLY_STEPS and step < period
    if early or step % period == 0:
        median = _median(norms) or _median([norm for norm in norms if norm > 0]) or math.inf
        group["threshold"] = scale * median * (2.0 if early else 1.0)
    clip = min(1.0, group["threshold"] / (norm + 1e-20))
    group["num_clipped"] += clip < 1.0
    return clip


def _median(norms: list[float]) -> float:
    """The release's pick for any number of norms; 0 where there is none."""
    return sorted(norms)[min(len(norms) - 1, len(norms) // 4 * 2)] if norms else 0.0
