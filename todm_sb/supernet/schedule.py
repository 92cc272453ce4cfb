"""Weights of losses that change while a network is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import number

# A number, or what gives it at an optimizer step; None stands for the end of training.
Weight = float | Callable[[int | None], float]

_CHECK = number(0, math.inf)


@dataclass(frozen=True)
class Schedule:
    """A weight that goes in a straight line from one value to another.

    Args:
        start: the weight up to ``first_step``.
        end: the weight from ``last_step`` on; None for ``start``, a constant.
        first_step: optimizer step at which it begins to change.
        last_step: optimizer step at which it has changed.

    Raises:
        ConfigError: on a value out of range, or a last step before the first.
    """

    start: float
    end: float | None = None
    first_step: int = 0
    last_step: int = 0

    def __post_init__(self) -> None:
        for name in ("start", "first_step", "last_step"):
            _CHECK(getattr(self, name), name)
        if self.end is not None:
            _CHECK(self.end, "end")
        if self.last_step < self.first_step:
            raise ConfigError(
                f"last_step is {self.last_step}: no schedule ends before its first_step "
                f"({self.first_step})"
            )

    def __call__(self, step: int | None) -> float:
        """The weight at an optimizer step; None for the end of training."""
        end = self.start if self.end is None else self.end
        if step is None or step >= self.last_step:
            return end
        if step <= self.first_step:
            return self.start
        done = (step - self.first_step) / (self.last_step - self.first_step)
        return self.start + done * (end - self.start)


def at(weight: Weight, step: int | None) -> float:
    """A weight at an optimizer step; None for the end of training."""
    return weight(step) if callable(weight) else weight


def check_weight(value: object, where: str) -> None:
    """Checks that a value is a :data:`Weight`, not below 0 where it is a number.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(value, type) or not callable(value):
        _CHECK(value, where)
