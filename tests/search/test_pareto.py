import itertools
import random

import pytest

from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.supernet import SearchSpace
from todm_sb.utils.errors import ConfigError

SPACE = SearchSpace(6, 2, ffn_dims=(1, 2, 3))


def some_result(seed=0, n=60):
    """Few different values, so that ties are common."""
    rng = random.Random(seed)
    configs = {SPACE.random(rng) for _ in range(n)}
    subnets = tuple(
        Evaluated(c, rng.randint(1, 12) / 4, {"params": 10 * rng.randint(1, 15)})
        for c in sorted(configs, key=lambda c: c.id)
    )
    methods = {"NSGA-II": tuple(s.config.id for s in subnets[::2]), "random": ()}
    return SearchResult("params", 10.0, SPACE, subnets, methods, (60, 100, 150))


@pytest.mark.parametrize("seed", range(5))
def test_the_front_holds_one_of_each_kind_that_nothing_beats(seed):
    result = some_result(seed)
    points = {(s.costs["params"], s.wer) for s in result.subnets}
    beaten = {
        a for a, b in itertools.product(points, points)
        if a != b and b[0] <= a[0] and b[1] <= a[1]
    }  # fmt: skip
    front = [(s.costs["params"], s.wer) for s in result.front()]
    assert front == sorted(points - beaten)


@pytest.mark.parametrize("budget", [60, 75, 100, 1000])
def test_the_best_for_a_budget_reads_best_and_is_cheapest_among_equals(budget):
    result = some_result()
    within = [(s.wer, s.costs["params"]) for s in result.subnets if s.costs["params"] <= budget]
    best = result.best(budget)
    assert (best.wer, best.costs["params"]) == min(within)


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ConfigError, match=r"budget 5 is below the smallest subnet \(10\)"):
        some_result().best(5)


def test_a_result_survives_its_file(tmp_path):
    path = tmp_path / "pareto.json"
    some_result(1).save(path)
    some_result().save(path)
    again = SearchResult.load(path)
    assert sorted(again.subnets, key=lambda s: s.config.id) == list(some_result().subnets)
    assert (again.methods, again.budgets) == (some_result().methods, some_result().budgets)
    assert [p.name for p in tmp_path.iterdir()] == ["pareto.json"]


def test_a_missing_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "pareto.json"
    with pytest.raises(ConfigError, match=r"pareto\.json does not exist: run todm-sb search"):
        SearchResult.load(path)
    for content in (b"{}", b"nonsense", b"[]", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not written by todm-sb search"):
            SearchResult.load(path)
