"""What operators cost: floating-point operations, bytes that they move, and the memory in use.

:class:`Counted` sees every operator that PyTorch runs, backward too, on real tensors or on fake
ones, which have a shape and no elements: a step of any size is counted in seconds.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# No work, though the dispatcher does not take them for views.
FREE = {
    aten.detach.default,
    aten.alias.default,
    aten._unsafe_view.default,
    aten.lift_fresh.default,
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}
FFTS = {aten._fft_r2c, aten._fft_c2r, aten._fft_c2c}
# A layer of an LSTM is one operator, and how many products of its matrices and frames it is.
LSTMS = {aten.mkldnn_rnn_layer: 1, aten.mkldnn_rnn_layer_backward: 2}

# Kinds of work: products by the type of their elements, Fourier transforms, and all else, which is
# limited by what it moves.
PRODUCTS = {torch.bfloat16: "bf16", torch.float16: "fp16"}
FLOAT32, FFT, REST = "fp32", "fft", "rest"


@dataclass(frozen=True)
class Work:
    """What operators do.

    Args:
        flops: of matrix products, convolutions and FFTs.
        n_bytes: of tensors read and written, each once an operator.
        launches: operators; each is a kernel at least.
    """

    flops: float = 0.0
    n_bytes: float = 0.0
    launches: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.n_bytes + other.n_bytes,
            self.launches + other.launches,
        )

    def __mul__(self, factor: float) -> Work:
        return Work(factor * self.flops, factor * self.n_bytes, factor * self.launches)


class Counted(TorchDispatchMode):
    """Takes down what is run within the context.

    Attributes:
        works: by kind.
        operators: how often each was run, such as ``aten.mul``.
        peak: most bytes in use at a time, of tensors made within the context.
    """

    def __init__(self) -> None:
        super().__init__()
        self.works: dict[str, Work] = defaultdict(Work)
        self.operators: Counter[str] = Counter()
        self.peak = 0
        self._live = 0
        # Storages that were seen; of those that are gone another may have the number.
        self._known: dict[int, weakref.ref] = {}

    @property
    def total(self) -> Work:
        """Of all kinds."""
        return sum(self.works.values(), Work())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not (func.is_view or func in FREE or func.namespace == "prim"):
            kind, work = _work_of(func._overloadpacket, args, kwargs, result)
            self.works[kind] += work
            self.operators[str(func._overloadpacket)] += 1
        for tensor in _tensors(result):
            self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        known = self._known.get(id(storage))
        if known is not None and known() is storage:
            return
        n_bytes = storage.nbytes()
        self._known[id(storage)] = weakref.ref(storage)
        weakref.finalize(storage, self._free, n_bytes).atexit = False
        self._live += n_bytes
        self.peak = max(self.peak, self._live)

    def _free(self, n_bytes: int) -> None:
        self._live -= n_bytes


def _work_of(packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> tuple[str, Work]:
    n_bytes = sum(x.numel() * x.element_size() for x in _tensors((args, kwargs, result)))
    if packet in FFTS:
        return FFT, Work(_fft_flops(packet, args[0], result), n_bytes, 1)
    if packet in flop_registry:
        flops = float(flop_registry[packet](*args, **kwargs, out_val=result))
        dtype = next(_tensors(args)).dtype
        return PRODUCTS.get(dtype, FLOAT32), Work(flops, n_bytes, 1)
    if packet in LSTMS:
        x, w_input, w_state = args[:3]
        products = x.shape[0] * x.shape[1] * (w_input.numel() + w_state.numel())
        return PRODUCTS.get(x.dtype, FLOAT32), Work(2.0 * LSTMS[packet] * products, n_bytes, 1)
    return REST, Work(0, n_bytes, 1)


def _fft_flops(packet: Any, x: Tensor, result: Tensor) -> float:
    """5 n log2 n of a complex FFT of n points and half of it of a real one (Frigo & Johnson 2005),
    along the last dimension."""
    whole = result if packet is aten._fft_c2r else x
    share = 5.0 if packet is aten._fft_c2c else 2.5
    return share * whole.numel() * math.log2(max(1, whole.shape[-1]))


def _tensors(x: Any) -> Iterator[Tensor]:
    return (y for y in tree_iter(x) if isinstance(y, Tensor))
