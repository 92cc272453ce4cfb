"""What the search asks of an algorithm, and what it tells it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from todm_sb.space import SearchSpace, SubnetConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from todm_sb.search.study import SharedStudy

# What :meth:`Task.spread` returns. Workers of a study have to begin alike: other words for another
# beginning.
BEGINNING = "the ends of each depth"
# Draws of a new subnet until neighbours of those within the budgets are taken.
DRAWS = 1000


@dataclass(frozen=True)
class Task:
    """What is searched for.

    Args:
        space: where.
        study: what all workers have evaluated.
        cost: of a subnet, in the unit of the budgets.
        limit: the largest budget.
        seed: of everything random.
    """

    space: SearchSpace
    study: SharedStudy
    cost: Callable[[SubnetConfig], float]
    limit: float
    seed: int

    def allowed(self, config: SubnetConfig) -> bool:
        """Whether a subnet is within the largest budget."""
        return self.cost(config) <= self.limit

    def random(self, n: int, known: Collection[SubnetConfig] = ()) -> list[SubnetConfig]:
        """Different random subnets within the budgets; fewer than ``n`` where they are rare.

        Args:
            n: how many.
            known: not these.
        """
        rng = random.Random(self.seed)
        draws = (self.space.random(rng) for _ in range(DRAWS + 10 * n))
        new = (c for c in draws if c not in known and self.allowed(c))
        return [*dict.fromkeys(new)][: max(0, n)]

    def evenly_spaced(self, n: int) -> list[SubnetConfig]:
        """Subnets from min to max within the budgets, ``n`` before those beyond are left out."""
        return [*dict.fromkeys(filter(self.allowed, self.space.evenly_spaced(max(2, n))))]

    def spread(self, n: int) -> list[SubnetConfig]:
        """Max and min, whatever the budgets, and some ``n`` whose layers are all alike: of each
        depth, or of depths so far apart, the cheapest and the dearest within the budgets.

        Random subnets and their children hardly ever are as deep and as narrow as these.
        """
        within = sorted(filter(self.allowed, self.space.uniform()), key=self.cost)
        cheapest = {len(c.layers): c for c in reversed(within)}
        dearest = {len(c.layers): c for c in within}
        depths = sorted(dearest, reverse=True)
        few = depths[:: max(1, math.ceil(2 * len(depths) / max(1, n)))]
        ends = (end[depth] for depth in few for end in (cheapest, dearest))
        return [*dict.fromkeys([self.space.max, self.space.min, *ends])]


class Proposer(Protocol):
    """A search algorithm; made of a :class:`Task`.

    It says what it would evaluate; the search takes the first subnet that no worker has evaluated
    or claimed and that is within the budgets, and where that finds none a random one, or a
    neighbour of one that is within them.
    """

    # In results and pictures.
    name: str

    def __init__(self, task: Task) -> None: ...

    def first(self) -> list[SubnetConfig]:
        """What it begins with, in this order, after max and min."""
        ...

    def candidates(self, trial: FrozenTrial, rng: random.Random) -> Iterator[SubnetConfig]:
        """What it would evaluate next, first choice first; may go on for ever.

        Args:
            trial: Optuna's, which is to evaluate it.
            rng: of the trial.
        """
        ...
