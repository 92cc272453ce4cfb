"""Local search over (word error rate, cost): from the best, one step on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from todm_sb.search.pareto import Evaluated, front_of
from todm_sb.search.proposers.protocol import Task
from todm_sb.search.study import SEARCH
from todm_sb.space import SubnetConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class LocalSearch:
    """Neighbours of the subnets on the Pareto front.

    Args:
        task: what is searched for.
    """

    name = "local search"

    def __init__(self, task: Task) -> None:
        self.task = task

    def first(self) -> list[SubnetConfig]:
        """Max, min, and those of :meth:`Task.spread` for half of a population."""
        return self.task.spread(self.task.study.population_size // 2)

    def candidates(self, trial: FrozenTrial, rng: random.Random) -> Iterator[SubnetConfig]:
        """All neighbours of a random subnet of the front, then those of another one."""
        front = self._front()
        rng.shuffle(front)
        for config in front:
            neighbours = self.task.space.neighbours(config)
            rng.shuffle(neighbours)
            yield from neighbours

    def _front(self) -> list[SubnetConfig]:
        """The best of what the search has evaluated within the budgets."""
        evaluated = [
            Evaluated(config, error_rate, {"cost": self.task.cost(config)})
            for config, error_rate in self.task.study.finished(SEARCH).values()
            if self.task.allowed(config)
        ]
        return [subnet.config for subnet in front_of(evaluated, "cost")]
