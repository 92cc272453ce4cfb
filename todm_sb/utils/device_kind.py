"""What kind of device work is arranged for: CPUs want other pieces of it than accelerators do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_counted_for: ContextVar[str | None] = ContextVar("counted_for", default=None)


def kind_of(device: torch.device) -> str:
    """The device's type, ``cpu`` or another; within :func:`counted_for`, that one."""
    return _counted_for.get() or device.type


@contextmanager
def counted_for(kind: str) -> Iterator[None]:
    """Arranges work as for devices of a type, wherever it runs: to count what they would do.

    Args:
        kind: as of ``torch.device.type``.
    """
    before = _counted_for.set(kind)
    try:
        yield
    finally:
        _counted_for.reset(before)
