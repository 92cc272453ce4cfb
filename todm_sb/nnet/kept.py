"""What is computed of weights alone, kept while they stay as they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any

from torch import Tensor

# Tensors and what of a tensor changes when its values do.
State = tuple[tuple[Any, ...], ...]


class KeptTensors:
    """Tensors by what they are for, those used last, up to a number of bytes.

    A copy of the module that has it, and a pickled one, begins with nothing kept.

    Args:
        most_bytes: that are kept; what alone is larger is not.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = Lock()
        self.clear()

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._state: State = ()
            self._found: OrderedDict[Hashable, list[Tensor]] = OrderedDict()

    @property
    def n_bytes(self) -> int:
        """That are kept now."""
        return sum(map(_n_bytes, self._found.values()))

    def get(
        self, key: Hashable, weights: Sequence[Tensor], compute: Callable[[], list[Tensor]]
    ) -> list[Tensor]:
        """What is kept for a key, or else what is computed, which is kept.

        Args:
            key: what it is for.
            weights: that it is computed of. When one has changed, all is forgotten: it is another
                tensor, lies elsewhere, or was written to. Only what is written through
                ``weight.data`` goes unnoticed.
            compute: without gradients.
        """
        if any(weight.is_inference() for weight in weights):  # nobody counts what is written
            return compute()
        state = tuple((id(w), w.data_ptr(), w.device, w.dtype, w._version) for w in weights)
        with self._lock:
            if state != self._state:
                self._state, self._found = state, OrderedDict()
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        computed = compute()
        with self._lock:
            if state == self._state and _n_bytes(computed) <= self.most_bytes:
                self._found[key] = computed
                while self.n_bytes > self.most_bytes:
                    self._found.popitem(last=False)
        return computed

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptTensors, (self.most_bytes,)


def _n_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
