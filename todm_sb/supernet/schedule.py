"""Weights of losses that change while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import number

# A number, or what gives it after so many reference batches of audio (see
# :mod:`todm_sb.training.pace`); None stands for the end of training.
Weight = float | Callable[[float | None], float]

_CHECK = number(0, math.inf)


@dataclass(frozen=True)
class Schedule:
    """A weight that goes in a straight line from one value to another.

    Args:
        start: the weight up to ``first_batch``.
        end: the weight from ``last_batch`` on; None for ``start``, a constant.
        first_batch: reference batches after which it begins to change.
        last_batch: reference batches after which it has changed.

    Raises:
        ConfigError: on a value out of range, or a last batch before the first.
    """

    start: float
    end: float | None = None
    first_batch: float = 0
    last_batch: float = 0

    def __post_init__(self) -> None:
        for name in ("start", "first_batch", "last_batch"):
            _CHECK(getattr(self, name), name)
        if self.end is not None:
            _CHECK(self.end, "end")
        if self.last_batch < self.first_batch:
            raise ConfigError(
                f"last_batch is {self.last_batch}: no schedule ends before its first_batch "
                f"({self.first_batch})"
            )

    def __bool__(self) -> bool:
        """Whether the weight is ever above 0, as a number is true."""
        return bool(self.start or self.end)

    def __call__(self, batches: float | None) -> float:
        """The weight after so many reference batches; None for the end of training."""
        end = self.start if self.end is None else self.end
        if batches is None or batches >= self.last_batch:
            return end
        if batches <= self.first_batch:
            return self.start
        done = (batches - self.first_batch) / (self.last_batch - self.first_batch)
        return self.start + done * (end - self.start)


def at(weight: Weight, batches: float | None) -> float:
    """A weight after so many reference batches; None for the end of training."""
    return weight(batches) if callable(weight) else weight


def check_weight(value: object, where: str) -> None:
    """Checks that a value is a :data:`Weight`, not below 0 where it is a number.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(value, type) or not callable(value):
        _CHECK(value, where)
