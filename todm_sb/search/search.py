"""Search for the best subnets by word error rate and cost.

An algorithm of :mod:`todm_sb.search.proposers` says what to evaluate next; each subnet evaluated is
within the budgets and new. Random and evenly spaced subnets are the baselines.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from todm_sb.search.budget import format_cost
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.search.proposers import Task, proposer_class
from todm_sb.search.proposers.protocol import DRAWS
from todm_sb.search.proposers.random_search import RandomSearch
from todm_sb.search.study import BASELINE, SEARCH, SharedStudy
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.progress import bar

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from tqdm import tqdm

logger = logging.getLogger(__name__)

# Seconds between looks at what other workers are doing.
PATIENCE = 0.5

RANDOM, EVENLY_SPACED = RandomSearch.name, "evenly spaced"


def check_budgets(budgets: Sequence[float], smallest: float, cost: str) -> None:
    """Refuses what no subnet can meet.

    Args:
        budgets: in the unit of the cost.
        smallest: cost of the min subnet.
        cost: what is searched by.

    Raises:
        ConfigError: if a budget is below the smallest subnet.
    """
    if budgets and min(budgets) < smallest:
        raise ConfigError(
            f"budget {format_cost(min(budgets), cost)} is below the smallest subnet, "
            f"which costs {format_cost(smallest, cost)}"
        )


def check_limit(study: SharedStudy, limit: float, cost: str) -> None:
    """Refuses a study that was searched within another largest budget.

    Args:
        study: shared with the other workers.
        limit: the largest budget, in the unit of the cost.
        cost: what is searched by.

    Raises:
        ConfigError: if it was, or its storage cannot be reached.
    """
    with study.connected():
        for other in study.limits() - {limit}:
            was, now = (format_cost(x, cost) for x in (other, limit))
            raise ConfigError(
                f"study {study.name!r} was searched up to {was}, not {now}: choose another "
                "name with --study"
            )


class SubnetSearch:
    """The search, as one worker does it.

    Args:
        study: shared with the other workers, who all search for the same.
        space: where to search.
        error_rate: of a subnet on the dev set, in percent.
        costs: of a subnet, by name; see :class:`Evaluated`.
        cost: which of them to search by.
        seconds: of audio, that MACs and latency are meant for.
        budgets: in the unit of the cost. The largest bounds the search; max and min are
            evaluated all the same.
        seed: of what the algorithm draws, and of the random baseline.
        algorithm: see :func:`todm_sb.search.proposers.proposer_class`.

    Raises:
        ConfigError: if a budget is below the smallest subnet, there is no such algorithm, or what
            it proposes is outside the space.
    """

    def __init__(
        self,
        study: SharedStudy,
        space: SearchSpace,
        error_rate: Callable[[SubnetConfig], float],
        costs: Callable[[SubnetConfig], dict[str, float]],
        cost: str = "params",
        seconds: float = 10.0,
        budgets: Sequence[float] = (),
        seed: int = 0,
        algorithm: str = "nsga2",
    ) -> None:
        self.study = study
        self.space = space
        self.error_rate = error_rate
        self.costs = functools.cache(costs)
        self.cost = cost
        self.seconds = seconds
        self.budgets = sorted(set(budgets))
        self.seed = seed
        check_budgets(self.budgets, self._cost(space.min), cost)
        limit = max(self.budgets, default=math.inf)
        self.task = Task(space, study, self._cost, limit, seed)
        self.proposer = proposer_class(algorithm)(self.task)
        # Of these every budget and every picture knows.
        ends = (space.max, space.min)
        self._first = [space.check(c) for c in dict.fromkeys([*ends, *self.proposer.first()])]

    def run(self, n: int, baselines: bool = True, progressbar: bool = True) -> SearchResult:
        """Searches until ``n`` subnets have been evaluated, by all workers and runs together.

        Args:
            n: evaluations of the algorithm, and of each baseline; fewer where the space or the
                budgets do not hold so many.
            baselines: whether to evaluate the baselines' subnets too.
            progressbar: show the best error rate within each budget so far.

        Raises:
            ConfigError: if the study was searched within another largest budget, or its storage
                cannot be reached.
        """
        lists = {RANDOM: self.task.random(n), EVENLY_SPACED: self.task.evenly_spaced(n)}
        lists.pop(self.proposer.name, None)  # random search needs no such baseline
        with self.study.connected():
            check_limit(self.study, self.task.limit, self.cost)
            self._search(n, progressbar)
            # What a worker that died had claimed of the first subnets is still to be evaluated.
            self._evaluate_all(self._first[:n], SEARCH, progressbar)
            if not baselines:
                return self.result({})
            self._evaluate_all(
                [*dict.fromkeys(itertools.chain(*lists.values()))], BASELINE, progressbar
            )
            return self.result(lists)

    def result(self, lists: dict[str, list[SubnetConfig]]) -> SearchResult:
        """What is known so far.

        Args:
            lists: subnets of each baseline.
        """
        finished = self.study.finished()
        subnets = tuple(
            Evaluated(config, error_rate, self.costs(config))
            for config, error_rate in finished.values()
        )
        methods = {self.proposer.name: tuple(self.study.finished(SEARCH))}
        for name, configs in lists.items():
            methods[name] = tuple(c.id for c in configs if c.id in finished)
        return SearchResult(
            self.cost, self.seconds, self.space, subnets, methods, tuple(self.budgets)
        )

    # Evaluation

    def _search(self, n: int, progressbar: bool) -> None:
        with bar(total=n, show=progressbar, desc=self.proposer.name, unit="subnet") as shown:
            while (done := len(self.study.finished(SEARCH))) < n:
                self._show(shown, done)
                if done + len(self.study.running(SEARCH)) >= n:
                    time.sleep(PATIENCE)  # the others may die
                elif not self._evaluate(SEARCH, self._propose, n):
                    everything = self.task.allowed(self.space.max)
                    where = "in the space" if everything else "within the budgets"
                    logger.warning("no other subnet is %s: stopped after %d of %d", where, done, n)
                    break
            self._show(shown, done)

    def _evaluate(
        self,
        by: str,
        propose: Callable[[FrozenTrial], SubnetConfig | None],
        quota: float = math.inf,
    ) -> bool:
        return self.study.evaluate_one(
            by, propose, self.error_rate, self._cost, self.task.limit, quota
        )

    def _evaluate_all(self, configs: list[SubnetConfig], by: str, progressbar: bool) -> None:
        """Waits, and works, until each subnet has been evaluated, here or by another worker."""
        rng = random.Random()
        with bar(total=len(configs), show=progressbar, desc=by, unit="subnet") as shown:
            while missing := self._missing(configs):
                self._show(shown, len(configs) - len(missing))
                running = self.study.running()
                if not (free := [c for c in missing if c.id not in running]):
                    time.sleep(PATIENCE)
                    continue
                self._evaluate(by, functools.partial(_one_of, free, rng))
            self._show(shown, len(configs))

    def _missing(self, configs: list[SubnetConfig]) -> list[SubnetConfig]:
        finished = self.study.finished()
        return [c for c in configs if c.id not in finished]

    def _show(self, shown: tqdm, n: int) -> None:
        shown.n = n
        if not shown.disable and self.budgets:
            result = self.result({})
            best = {
                format_cost(budget, self.cost): f"{result.best(budget).wer:.2f} %"
                for budget in result.budgets
                if any(s.costs[self.cost] <= budget for s in result.subnets)
            }
            shown.set_postfix(best, refresh=False)
        shown.refresh()

    # Proposals

    def _cost(self, config: SubnetConfig) -> float:
        return self.costs(config)[self.cost]

    def _propose(self, trial: FrozenTrial) -> SubnetConfig | None:
        """The subnet of a trial: of the algorithm's first, else a candidate, a random one or, where
        few are within the budgets, a neighbour of one that is; None where none is new."""
        rng = random.Random(f"{self.seed}/{trial.number}")
        taken = self.study.running() | set(self.study.finished(SEARCH))
        if first := [c for c in self._first if c.id not in taken]:
            return first[0]
        candidates = itertools.islice(self.proposer.candidates(trial, rng), DRAWS)
        others = (self.space.random(rng) for _ in range(DRAWS))
        for config in itertools.chain(candidates, others, self._neighbours(rng)):
            whole = self.space.check(config)
            if whole.id not in taken and self.task.allowed(whole):
                return whole
        return None

    def _neighbours(self, rng: random.Random) -> Iterator[SubnetConfig]:
        """Of all that the search knows within the budgets, and of min, from which the others are
        reached without a step beyond the budgets."""
        found = [config for config, _ in self.study.finished(SEARCH).values()]
        within = [*dict.fromkeys([self.space.min, *filter(self.task.allowed, found)])]
        rng.shuffle(within)
        for config in within:
            neighbours = self.space.neighbours(config)
            rng.shuffle(neighbours)
            yield from neighbours


def _one_of(configs: list[SubnetConfig], rng: random.Random, _: object) -> SubnetConfig:
    return rng.choice(configs)
