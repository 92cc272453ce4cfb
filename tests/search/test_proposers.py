"""The algorithms behind the search, each against what it promises."""

import itertools
import math
import random
import sys
from types import SimpleNamespace

import pytest
from test_search import SMALL, costs, error_rate, mean_best

from todm_sb.search.proposers import ALGORITHMS, Task, proposer_class
from todm_sb.search.search import EVENLY_SPACED, RANDOM, SubnetSearch
from todm_sb.search.study import SEARCH, SharedStudy
from todm_sb.supernet import SearchSpace
from todm_sb.utils.errors import ConfigError

SPACE = SearchSpace(5, 2, ffn_dims=(128, 256, 384))


def search(folder, algorithm, evaluate=error_rate, space=SPACE, n=14, baselines=False, **options):
    study = SharedStudy(folder / "study.db", population_size=8)
    one = SubnetSearch(study, space, evaluate, costs, algorithm=algorithm, **options)
    return study, one.run(n, baselines, progressbar=False)


def found(study):
    """What the search evaluated, in this order."""
    return [config for config, _ in study.finished(SEARCH).values()]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_evaluates_max_min_and_new_subnets_within_the_budgets(tmp_path, algorithm):
    study, result = search(tmp_path, algorithm, budgets=[4500.0])
    configs = found(study)
    assert len(configs) == len(set(configs)) == 14
    assert configs[:2] == [SPACE.max, SPACE.min]
    assert all(costs(config)["params"] <= 4500 for config in configs[1:])
    (name,) = result.methods
    assert name == proposer_class(algorithm).name
    assert set(result.methods[name]) == {config.id for config in configs}


@pytest.mark.parametrize("algorithm", ["random", "local"])
def test_a_space_is_searched_to_its_end(tmp_path, algorithm):
    study, _ = search(tmp_path, algorithm, space=SMALL, n=100)
    assert len(found(study)) == SMALL.size


class Memory(dict):
    """Of a study, what a proposer asks."""

    population_size = 8

    def finished(self, by):
        return self


def proposed(algorithm, seed, n=60, rate=error_rate):
    """The subnets of a search without a database."""
    memory = Memory()
    proposer = proposer_class(algorithm)(
        Task(SPACE, memory, lambda config: costs(config)["params"], math.inf, seed)
    )
    for i in range(1000):
        candidates = [*proposer.first()[i : i + 1]] or [
            *itertools.islice(proposer.candidates(None, random.Random(f"{seed}/{i}")), 50)
        ]
        new = [c for c in candidates if c.id not in memory][:1]
        memory |= {c.id: (c, rate(c)) for c in new}
        if len(memory) == n:
            return [config for config, _ in memory.values()]
    raise AssertionError("the space is searched through")


def test_random_search_does_not_look_at_what_it_finds():
    order = proposed("random", 0)
    assert proposed("random", 0, rate=lambda config: -error_rate(config)) == order


def test_the_seed_says_what_is_drawn(tmp_path):
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        runs.append(found(search(tmp_path / name, "random", n=3, seed=seed)[0]))
    assert runs[0] == runs[1] != runs[2]


def test_random_search_is_its_own_baseline(tmp_path):
    _, result = search(tmp_path, "random", n=8, baselines=True)
    assert [*result.methods] == [RANDOM, EVENLY_SPACED]
    assert len(result.methods[RANDOM]) == 8


def dominates(a, b):
    """Whether one subnet is no worse than another in both, and not the same."""
    ours, theirs = ((error_rate(c), costs(c)["params"]) for c in (a, b))
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def task(space, limit=math.inf):
    return Task(space, None, lambda config: costs(config)["params"], limit, 0)


def alike(depth, width):
    """A subnet whose layers are all as wide."""
    (found,) = (c for c in SPACE.uniform() if c["ffn_dims"] == (width,) * depth)
    return found


def test_the_first_subnets_are_of_each_depth_the_narrowest_and_the_widest_within_the_budgets():
    limit = costs(alike(5, 128))["params"]
    first = [SPACE.max, SPACE.min]
    of_three = [alike(3, 128), alike(3, 384), alike(2, 384)]
    found = task(SPACE, limit).spread(9)
    assert found == [*first, alike(5, 128), alike(4, 128), alike(4, 384), *of_three]
    of_few = [alike(5, 128), *of_three[:2]]
    assert task(SPACE, limit).spread(4) == [*first, *of_few]
    less = costs(alike(4, 256))["params"]
    assert task(SPACE, less).spread(9) == [*first, alike(4, 128), alike(4, 256), *of_three]
    assert task(SPACE, 0).spread(9) == first


@pytest.mark.parametrize("algorithm", ["nsga2", "local"])
def test_where_depth_alone_counts_the_narrowest_of_all_layers_is_found_at_once(tmp_path, algorithm):
    limit = costs(alike(5, 128))["params"]
    _, result = search(
        tmp_path, algorithm, lambda config: 100 - len(config.layers), n=6, budgets=[limit]
    )
    assert result.best(limit).config == alike(5, 128)


def test_local_search_evaluates_neighbours_of_the_front():
    configs = proposed("local", 0, 14)
    first = task(SPACE).spread(4)
    assert configs[: len(first)] == first
    for i, config in enumerate(configs[len(first) :], len(first)):
        before = configs[:i]
        front = [a for a in before if not any(dominates(b, a) for b in before)]
        assert any(config in SPACE.neighbours(a) for a in front)


@pytest.mark.parametrize("seed", range(4))
def test_local_search_finds_a_better_front_than_random_search(seed):
    local, others = (
        mean_best(proposed(name, seed), range(2400, 6400, 200)) for name in ("local", "random")
    )
    assert local < others


class OneAfterAnother:
    """An algorithm that nobody but this file knows."""

    name = "one after another"

    def __init__(self, task):
        self.space = task.space

    def first(self):
        return []

    def candidates(self, trial, rng):
        return iter(self.space.neighbours(self.space.max))


def test_an_algorithm_of_ones_own_is_named_by_its_place(tmp_path):
    budgets = [costs(SMALL.min)["params"], costs(SMALL.max)["params"]]
    name = f"{__name__}.OneAfterAnother"
    study, result = search(tmp_path, name, space=SMALL, n=4, budgets=budgets)
    assert found(study) == [SMALL.max, SMALL.min, *SMALL.neighbours(SMALL.max)[:2]]
    assert [*result.methods] == ["one after another"]
    assert [result.best(budget).config for budget in budgets] == [SMALL.min, SMALL.max]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nsga3", "no search algorithm .*nsga2, random, local"),
        ("", "no search algorithm .*nsga2, random, local"),
        ("no.such.Class", "search algorithm 'no.such.Class': .* cannot be imported"),
        ("todm_sb.search.proposers.None_", "there is no such class: give one of nsga2, random"),
    ],
)
def test_an_unknown_algorithm_is_refused(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        proposer_class(name)
    assert "\n" not in str(caught.value)


class Own:
    """An algorithm of a user's own; each test takes something away."""

    name = "own"

    def __init__(self, task):
        self.task = task

    def first(self):
        return []

    def candidates(self, trial, rng):
        return iter([SMALL.max])


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("nobody", "give one of nsga2"),
        ("nobody.X", "'nobody' cannot be imported"),
        ("json.Nope", "no such class"),
        ("json.dumps", "no such class"),
        (".X", "give one of nsga2"),
        ("json.JSONDecoder", "lacks name"),
        ("own_proposers.NoCandidates", "lacks candidates"),
        ("own_proposers.NoTask", "made of a Task alone"),
    ],
)
def test_what_is_no_algorithm_is_refused_in_one_line(algorithm, message, monkeypatch):
    own = SimpleNamespace(
        NoCandidates=type("NoCandidates", (), {"name": "x", "first": Own.first}),
        NoTask=type("NoTask", (Own,), {"__init__": lambda self: None}),
    )
    monkeypatch.setitem(sys.modules, "own_proposers", own)
    with pytest.raises(ConfigError, match=message) as refused:
        proposer_class(algorithm)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["first", "candidates"])
def test_a_proposal_outside_the_space_is_refused_by_its_name(tmp_path, monkeypatch, method):
    outside = SearchSpace(9, 9, ffn_dims=(7,)).max
    proposes = type("Strange", (Own,), {method: lambda self, *_: [outside]})
    monkeypatch.setitem(sys.modules, "own_proposers", SimpleNamespace(Strange=proposes))
    with pytest.raises(ConfigError, match="outside the search space"):
        search(tmp_path, "own_proposers.Strange", n=3)
