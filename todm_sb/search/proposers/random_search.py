"""Random search, which learns nothing from what it has seen."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from todm_sb.search.proposers.protocol import Task
from todm_sb.space import SubnetConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class RandomSearch:
    """Max, min and random subnets.

    Args:
        task: what is searched for.
    """

    name = "random"

    def __init__(self, task: Task) -> None:
        self.space = task.space

    def first(self) -> list[SubnetConfig]:
        """Nothing else than max and min."""
        return []

    def candidates(self, trial: FrozenTrial, rng: random.Random) -> Iterator[SubnetConfig]:
        """Random ones."""
        return (self.space.random(rng) for _ in itertools.count())
