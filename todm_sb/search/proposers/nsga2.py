"""NSGA-II (Deb et al. 2002) over (word error rate, cost).

Optuna counts generations and selects who survives; children come from the search space's own
crossover and mutation, so that each is a subnet of the space.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial

from todm_sb.search.proposers.protocol import Task
from todm_sb.search.study import config_of
from todm_sb.space import SubnetConfig


class NSGA2:
    """Children of the best of the last generation.

    Args:
        task: what is searched for.
    """

    name = "NSGA-II"

    def __init__(self, task: Task) -> None:
        self.task = task
        size = task.study.population_size
        self.sampler = optuna.samplers.NSGAIISampler(population_size=size)
        task.study.search.sampler = self.sampler

    def first(self) -> list[SubnetConfig]:
        """Max, min, those of :meth:`Task.spread` for half of the population, and random ones."""
        size = self.task.study.population_size
        first = self.task.spread(size // 2)
        return first + self.task.random(size - len(first), known=set(first))

    def candidates(self, trial: FrozenTrial, rng: random.Random) -> Iterator[SubnetConfig]:
        """Children of the trial's generation; none in the first."""
        study, space = self.task.study.search, self.task.space
        generation = self.sampler.get_trial_generation(study, trial)
        parents = self.sampler.get_parent_population(study, generation)
        while parents:
            a, b = (config_of(_tournament(parents, rng)) for _ in range(2))
            yield space.mutate(space.crossover(a, b, rng), rng)


def _tournament(parents: list[FrozenTrial], rng: random.Random) -> FrozenTrial:
    """The better of two random parents, the first where neither is."""
    a, b = rng.choice(parents), rng.choice(parents)
    b_dominates = a.values != b.values and all(map(float.__ge__, a.values, b.values))
    return b if b_dominates else a
