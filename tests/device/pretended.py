"""An accelerator that is none: a device ``far`` whose tensors lie in the memory of the CPU.

It finds, without a GPU, tensors on the wrong device, and counts what costs on the right one::

    from pretended import FAR, pretended_device

    with pretended_device() as ledger:
        step = prepare(model.to(FAR))
        ledger.clear()
        step()
        print(ledger.launches.total(), ledger.reads.total())

Operators between devices fail as on CUDA: all but copies, numbers (no dimension) in pointwise
operators, and indices. Each result is computed by the CPU's kernel, hence equal to the CPU's. As on
CUDA, torchaudio's transducer loss has rules of its own, and an LSTM is one operator.

Of PyTorch it takes the experimental ``_setup_privateuseone_for_python_backend``; :data:`AVAILABLE`
says whether there is one. To be imported before the first backward; outside of
:func:`pretended_device` nobody finds the device.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torchaudio  # noqa: F401  its operators
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from todm_sb.experiments.plan.count import FREE

FAR = "far"
AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")

aten = torch.ops.aten

# What a result of which the host has to know: numbers, truth, or how many elements there are.
READS = {
    aten._local_scalar_dense.default: "number",
    aten.is_nonzero.default: "truth",
    aten.equal.default: "equal",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.unique_dim.default: "unique",
    aten._unique2.default: "unique",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._ctc_loss.Tensor: "lengths of CTC",
}
COPIES = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class MixedDevicesError(RuntimeError):
    """An operator got tensors of several devices."""


@dataclass
class Ledger:
    """What was asked of the device; keys are (what, file:line).

    Args:
        launches: operators that compute, views not counted. A batched one counts once.
        reads: results that the host has to know: it waits until all that was launched is done.
        writes: copies to the device that are not ``non_blocking``: it waits, too, as far as the
            device is behind.
    """

    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    reads: Counter[tuple[str, str]] = field(default_factory=Counter)
    writes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begins anew."""
        for counter in (self.launches, self.reads, self.writes):
            counter.clear()


_ledger = Ledger()


def _note(counter: Counter[tuple[str, str]], what: str) -> None:
    """Counts what happened, by the code that asked for it."""
    counter[what, _place()] += 1


def _place() -> str:
    """The innermost line of this project that is running, else of what it calls."""
    # Backward has a thread of its own, in which no code of ours runs.
    frame = sys._current_frames().get(threading.main_thread().ident)
    found = "elsewhere"
    while frame is not None:
        own, name = _short_name(frame.f_code.co_filename)
        if own:
            return f"{name}:{frame.f_lineno}"
        if name and found == "elsewhere":
            found = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return found


@functools.cache
def _short_name(file: str) -> tuple[bool, str]:
    """Whether a file is this project's, and how to name it; nothing for those that say little."""
    if "/todm_sb/" in file:
        return True, f"todm_sb/{file.rpartition('/todm_sb/')[2]}"
    if "/site-packages/" in file and "/torch/" not in file:
        return False, file.rpartition("/site-packages/")[2]
    return False, ""


@dataclass(frozen=True)
class _Operator:
    """What is to be known of an operator."""

    name: str
    compute: Callable[..., Any]
    is_free: bool
    takes_numbers: bool
    reads: str | None
    copies: bool
    indexes: bool

    @classmethod
    def of(cls, func: Any) -> _Operator:
        """Looked up once: hashing an operator takes longer than what is done with it."""
        if id(func) not in _operators:
            takes_numbers = torch.Tag.pointwise in func.tags or func is aten.masked_fill_.Tensor
            _operators[id(func)] = cls(
                str(func),
                _SUBSTITUTES.get(func, func),
                func.is_view or func in FREE,
                takes_numbers,
                READS.get(func),
                func in COPIES,
                func in INDEXING,
            )
        return _operators[id(func)]


_operators: dict[int, _Operator] = {}


class FarTensor(Tensor):
    """A tensor on the device; ``near`` is the one that holds its elements."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=torch.device(FAR, 0),
        )
        tensor.near = near
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"FarTensor({self.near})"

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert a tensor on far to numpy: use Tensor.cpu() first")

    __array__ = numpy

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.near.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = FarTensor(self.near.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copy, self.requires_grad)
        return copy.requires_grad_(self.requires_grad)


def _map(change: Callable[[Tensor], Any], x: Any) -> Any:
    """The same with its tensors changed, in lists, tuples and mappings too."""
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, (list, tuple)):
        return type(x)([_map(change, y) for y in x])
    if isinstance(x, dict):
        return {name: _map(change, y) for name, y in x.items()}
    return x


def _is_far(device: Any) -> bool:
    return device is not None and torch.device(device).type == FAR


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """An operator, wherever its tensors and its result are."""
    tensors: list[Tensor] = []
    _map(tensors.append, (args, kwargs))
    near = [x for x in tensors if not isinstance(x, FarTensor)]
    any_far, device = len(near) < len(tensors), kwargs.get("device")
    if not any_far and not _is_far(device):
        return func(*args, **kwargs)
    operator = _Operator.of(func)
    _check_devices(operator, near if any_far else [])
    _count(operator, func, args, kwargs, near)
    result = _compute(operator, args, kwargs)
    if func is aten._local_scalar_dense.default or (device is not None and not _is_far(device)):
        return result
    if func is aten.copy_.default and not isinstance(args[0], FarTensor):
        return args[0]
    result = _map(_to_far, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if any_far else result


def _to_far(x: Tensor) -> Tensor:
    return x if isinstance(x, FarTensor) else FarTensor(x.resolve_conj().resolve_neg())


def _to_near(x: Tensor) -> Tensor:
    return x.near if isinstance(x, FarTensor) else x


def _check_devices(operator: _Operator, near: list[Tensor]) -> None:
    """Refuses tensors of the CPU among those of the device, as CUDA does."""
    if not near or operator.copies or operator.indexes:
        return
    wrong = [tuple(x.shape) for x in near if x.dim() or not operator.takes_numbers]
    if wrong:
        raise MixedDevicesError(
            f"{operator.name}: tensors on {FAR} and on the CPU, the latter of shapes {wrong}"
        )


def _count(operator: _Operator, func: Any, args: tuple, kwargs: dict, near: list[Tensor]) -> None:
    """Takes down what an operator costs."""
    if not operator.is_free:
        _note(_ledger.launches, operator.name)
    if operator.reads:
        _note(_ledger.reads, operator.reads)
    elif func is aten._to_copy.default:
        if not _is_far(kwargs.get("device", FAR)):
            _note(_ledger.reads, "a tensor")
        elif near and not kwargs.get("non_blocking"):
            _note(_ledger.writes, "a tensor")
    elif func is aten.copy_.default and near:
        if near[0] is args[0]:
            _note(_ledger.reads, "a tensor")
        elif not (args[2] if len(args) > 2 else kwargs.get("non_blocking")):
            _note(_ledger.writes, "a tensor")
    elif operator.indexes:
        indices = [x for x in args[1] if x is not None]
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
            _note(_ledger.reads, "nonzero of an index")
        if any(not isinstance(x, FarTensor) for x in indices):
            _note(_ledger.writes, "an index")


def _compute(operator: _Operator, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The result, on the CPU."""
    if kwargs:
        kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
    args, kwargs = _map(_to_near, (args, kwargs))
    return operator.compute(*args, **kwargs)


class _Mode(TorchDispatchMode):
    """Sees what makes tensors on the device out of nothing, or of tensors of the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


# Operators that are others on CUDA


def _transducer_loss(logits: Tensor, targets: Tensor, n: Tensor, u: Tensor, *options: Any) -> Any:
    """torchaudio's, with the rules of its kernel for CUDA, some of which that does not check."""
    for name, x in (("targets", targets), ("logit_lengths", n), ("target_lengths", u)):
        if x.dtype != torch.int32 or not x.is_contiguous():
            raise ValueError(f"rnnt_loss: {name} must be int32 and contiguous")
    if logits.dtype not in (torch.float32, torch.float16) or not logits.is_contiguous():
        raise ValueError(f"rnnt_loss: logits are {logits.dtype}, or not contiguous")
    if (logits.shape[1], logits.shape[2]) != (int(n.max()), int(u.max()) + 1):
        raise ValueError("rnnt_loss: logits are not of the longest frames and labels")
    if targets.shape[1] != int(u.max()):
        raise ValueError("rnnt_loss: targets are not of the longest labels")
    if int(n.max()) < 2 or int(u.max()) < 1:
        raise ValueError("rnnt_loss: the kernel leaves one frame, or no label, unwritten")
    for _ in range(2):  # of each kind of length
        _note(_ledger.reads, "lengths of rnnt_loss")
    return torch.ops.torchaudio.rnnt_loss_forward(logits, targets, n, u, *options)


def _lstm_cell(
    from_input: Tensor,
    from_state: Tensor,
    c: Tensor,
    b_input: Tensor | None = None,
    b_state: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The fused cell, which the CPU does not have (Hochreiter & Schmidhuber 1997)."""
    gates = from_input + from_state
    if b_input is not None:
        gates = gates + b_input + b_state
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c, torch.cat([i, f, g, o], 1)


_SUBSTITUTES: dict[Any, Callable[..., Any]] = {
    torch.ops.torchaudio.rnnt_loss_forward.default: _transducer_loss,
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
}


class _LSTM(torch.autograd.Function):
    """A whole LSTM, forward and backward one operator each, as cuDNN's are."""

    @staticmethod
    def forward(ctx: Any, options: tuple, *inputs: Tensor) -> tuple[Tensor, ...]:
        _note(_ledger.launches, "aten.lstm.input")
        near = [x.near.detach().requires_grad_(x.requires_grad) for x in inputs]
        x, h, c, *weights = near
        with torch.enable_grad():
            ctx.graph = near, aten.lstm.input(x, (h, c), weights, *options)
        return tuple(FarTensor(y.detach()) for y in ctx.graph[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _note(_ledger.launches, "aten.lstm.input backward")
        inputs, outputs = ctx.graph
        wanted = [x for x in inputs if x.requires_grad]
        with torch.enable_grad():
            found = iter(torch.autograd.grad(outputs, wanted, [g.near for g in grads]))
        return None, *(FarTensor(next(found)) if x.requires_grad else None for x in inputs)


def _lstm(x: Tensor, state: list[Tensor], weights: list[Tensor], *options: Any) -> tuple:
    return _LSTM.apply(options, x, *state, *weights)


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """One operator, as CUDA has it; other devices get it in pieces."""
    _note(_ledger.launches, "aten.silu_backward.default")
    return FarTensor(aten.silu_backward(grad.near, x.near))


# Autocast, whose rules each device registers for itself: CUDA's, of the operators used here

IN_LOWER_PRECISION = (
    *("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "lstm_cell"),
    *("conv1d.padding", "conv2d.padding", "lstm.input"),
)
IN_FLOAT32 = (
    *("exp", "log", "log1p", "expm1", "reciprocal", "rsqrt", "softplus", "layer_norm", "logsumexp"),
    *("log_softmax.int", "softmax.int", "cumsum", "sum", "sum.dim_IntList", "norm.ScalarOpt_dim"),
    *("pow.Tensor_Scalar", "pow.Scalar", "pow.Tensor_Tensor"),
)


def _autocast(name: str, lower: bool) -> Callable[..., Any]:
    """The kernel of an operator that computes in autocast's precision, or in float32."""
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(FAR) if lower else torch.float32

        def cast(x: Tensor) -> Tensor:
            eligible = x.is_floating_point() and x.dtype != torch.float64
            return x.to(dtype) if eligible else x

        with torch.autocast(FAR, enabled=False):
            args, kwargs = _map(cast, (args, kwargs))
            return operator(*args, **kwargs)

    return kernel


# The device


class _Hooks(getattr(torch._C._acc, "PrivateUse1Hooks", object)):
    """What PyTorch asks about an accelerator; there is one only while it is pretended."""

    pretended = False

    def is_available(self) -> bool:
        return _Hooks.pretended

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True

    def device_count(self) -> int:
        return int(_Hooks.pretended)

    def current_device(self) -> int:
        return 0


class _DeviceModule:
    """``torch.far``."""

    def is_available(self) -> bool:
        return _Hooks.pretended

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return int(_Hooks.pretended)

    def current_device(self) -> int:
        return 0

    def set_device(self, index: int) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    def manual_seed_all(self, seed: int) -> None:
        pass  # random numbers are the CPU's

    def _is_in_bad_fork(self) -> bool:
        return False


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return FarTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    if not isinstance(source, FarTensor) and not non_blocking:
        _note(_ledger.writes, "a list")
    _to_near(target).copy_(_to_near(source))
    return target


_ATEN, _ALL = (torch.library.Library(name, "IMPL") for name in ("aten", "_"))


def _register() -> None:
    """Makes PyTorch know the device."""
    backend_registration._setup_privateuseone_for_python_backend(
        FAR, backend_module=_DeviceModule(), hook=_Hooks()
    )
    # Python lists become tensors below where modes see it: by kernels of the device.
    _ATEN.impl("empty_strided", _empty_strided, "PrivateUse1")
    _ATEN.impl("_copy_from", _copy_from, "PrivateUse1")
    _ATEN.impl("lstm.input", _lstm, "AutogradPrivateUse1")
    _ATEN.impl("silu_backward", _silu_backward, "AutogradPrivateUse1")
    _ALL.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, lower in ((IN_LOWER_PRECISION, True), (IN_FLOAT32, False)):
        for name in names:
            _ATEN.impl(name, _autocast(name, lower), "AutocastPrivateUse1")


# At once: autograd starts a thread for each device with the first backward, of whatever device.
if AVAILABLE:
    _register()


@contextmanager
def pretended_device() -> Iterator[Ledger]:
    """The device for as long as the context lasts, and what is asked of it."""
    load = torch.load

    def load_to(f: Any, map_location: Any = None, **options: Any) -> Any:
        """Storages are the CPU's: what is asked for on the device is moved there."""
        if not isinstance(map_location, str | torch.device) or not _is_far(map_location):
            return load(f, map_location=map_location, **options)
        loaded = load(f, map_location="cpu", **options)
        return _map(lambda x: x.to(map_location), loaded)

    _ledger.clear()
    available = mock.patch.object(_Hooks, "pretended", True)
    with available, mock.patch.object(torch, "load", load_to), _Mode():
        yield _ledger
