"""The search with error rates that cost nothing, in one process and in several."""

import itertools
import json
import multiprocessing
import os
import signal
import time
from statistics import fmean

import optuna
import pytest

from todm_sb.experiments.search_run import evenly_spaced_budgets
from todm_sb.search.proposers.nsga2 import NSGA2
from todm_sb.search.search import EVENLY_SPACED, RANDOM, SubnetSearch
from todm_sb.search.study import BASELINE, SEARCH, SharedStudy
from todm_sb.supernet import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

SPACE = SearchSpace(6, 3, ffn_dims=(128, 256, 384))
SMALL = SearchSpace(2, 1, ffn_dims=(1, 2))  # 8 subnets


def costs(config):
    return {"params": 1000.0 * len(config.layers) + sum(config["ffn_dims"])}


def error_rate(config):
    """Early layers help most, each less the wider it already is."""
    used = zip(config.layers, config["ffn_dims"], strict=True)
    return 100 / (1 + sum(width**0.5 / (1 + i) for i, width in used))


class Log:
    """An error rate that writes down, in a file that processes share, what it is asked for."""

    def __init__(self, path, die_at=None):
        self.path = path
        self.die_at = die_at

    def __call__(self, config):
        with self.path.open("a") as file:
            file.write(f"{os.getpid()} {config.id}\n")
        if len(self.ids) == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return error_rate(config)

    @property
    def lines(self):
        return self.path.read_text().splitlines() if self.path.exists() else []

    @property
    def ids(self):
        return [line.split()[1] for line in self.lines]

    @property
    def workers(self):
        return {line.split()[0] for line in self.lines}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def search(url, evaluate=error_rate, space=SPACE, population=10, grace=60, **options):
    study = SharedStudy(url, population_size=population, grace=grace)
    return SubnetSearch(study, space, evaluate, costs, **options)


def run(*args, n=30, baselines=False, **options):
    return search(*args, **options).run(n, baselines, progressbar=False)


def test_optuna_does_not_tell_of_each_trial():
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_the_search_reads_as_many_subnets_as_asked_for_and_none_twice(url, tmp_path):
    log = Log(tmp_path / "log")
    result = run(url, log, n=16)
    assert len(log.ids) == len(set(log.ids)) == len(result.methods[NSGA2.name]) == 16
    (deepest,) = (c for c in SPACE.uniform() if c["ffn_dims"] == (128,) * SPACE.n_layers)
    assert {SPACE.max, SPACE.min, deepest} <= {s.config for s in result.subnets}
    for subnet in result.subnets:
        assert subnet.config in SPACE
        assert subnet.wer == error_rate(subnet.config)
        assert subnet.costs == costs(subnet.config)


def test_baselines_read_as_many_and_share_what_is_known(url, tmp_path):
    log = Log(tmp_path / "log")
    result = run(url, log, n=8, population=4, baselines=True)
    assert len(log.ids) == len(set(log.ids)) == len(result.subnets)
    assert len(result.methods[NSGA2.name]) == len(result.methods[RANDOM]) == 8
    evenly = result.of(EVENLY_SPACED)
    assert {s.config for s in evenly} == set(SPACE.evenly_spaced(8))
    # What the search found is at least as good as the evenly spaced subnet of the same size.
    for subnet in evenly:
        assert result.best(subnet.costs["params"]).wer <= subnet.wer


def mean_best(configs, budgets):
    """Mean error rate of the best subnet within each budget: lower is better."""
    return fmean(
        min((error_rate(c) for c in configs if costs(c)["params"] <= b), default=100)
        for b in budgets
    )


@pytest.mark.slow
def test_the_search_finds_a_better_front_than_random_search(url):
    ours = search(url)
    found = [s.config for s in ours.run(50, False, progressbar=False).subnets]
    budgets = range(3400, 8400, 100)
    assert mean_best(found, budgets) < mean_best(ours.task.random(50), budgets)


def test_budgets_bound_what_is_read_but_for_max(url):
    result = run(url, n=12, baselines=True, budgets=[4000.0, 5500.0, 4000.0])
    read = {s.config for s in result.subnets}
    assert SPACE.max in read
    assert all(costs(config)["params"] <= 5500 for config in read - {SPACE.max})
    assert result.budgets == (4000.0, 5500.0)
    assert len(result.methods[RANDOM]) == 12


def test_a_budget_below_the_smallest_subnet_is_refused(url):
    with pytest.raises(ConfigError, match=r"budget 3 k is below the smallest subnet.* 3\.384 k"):
        search(url, budgets=[5000.0, 3000.0])


@pytest.mark.parametrize("of_the_command", [False, True])
def test_a_space_is_searched_to_its_end_and_no_further(url, tmp_path, caplog, of_the_command):
    log = Log(tmp_path / "log")
    ends = [costs(config)["params"] for config in (SMALL.min, SMALL.max)]
    budgets = evenly_spaced_budgets(*ends) if of_the_command else []
    result = run(url, log, space=SMALL, n=100, baselines=True, budgets=budgets)
    assert len(result.subnets) == len(log.ids) == SMALL.size == 8
    assert "no other subnet is in the space: stopped after 8 of 100" in caplog.text


def test_the_few_subnets_of_a_tight_budget_are_all_found(url, caplog):
    budget = 1.02 * costs(SPACE.min)["params"]
    # Any three of six layers, all of them narrow.
    result = run(url, budgets=[budget], n=40)
    read = {s.config for s in result.subnets} - {SPACE.max}
    assert read == {
        SubnetConfig(layers, ffn_dims=[128] * 3) for layers in itertools.combinations(range(6), 3)
    }
    assert "no other subnet is within the budgets: stopped after 21 of 40" in caplog.text


def test_a_search_goes_on_where_it_ended(url, tmp_path):
    log = Log(tmp_path / "log")
    run(url, log, n=6, population=4)
    before = list(log.ids)
    result = run(url, log, n=8, population=4, baselines=True)
    assert log.ids[:6] == before
    assert len(log.ids) == len(set(log.ids))
    assert set(before) <= set(result.methods[NSGA2.name])
    assert len(result.methods[NSGA2.name]) == 8
    # What the baselines have read, the search need not read again.
    result = run(url, log, n=12, population=4)
    assert len(log.ids) == len(set(log.ids))
    assert len(result.methods[NSGA2.name]) == 12


def in_processes(count, /, target, *args, **kwargs):
    """Exit codes of ``count`` processes that run the same at the same time."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target, args=args, kwargs=kwargs) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


# PostgreSQL where an empty database is given.
STORAGES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


# One that is searched to its end, but not before the second worker is there, and a large one.
SPACES = [(SearchSpace(3, 1, ffn_dims=(1, 2)), 26), (SPACE, 14)]


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize(("space", "n"), SPACES, ids=["searched to its end", "large"])
def test_workers_share_the_work_and_never_read_the_same_subnet_twice(url, tmp_path, kind, space, n):
    if kind == "postgresql" and not (url := os.environ.get("TODM_TEST_POSTGRES")):
        pytest.skip("TODM_TEST_POSTGRES names no empty database")
    log = Log(tmp_path / "log")
    codes = in_processes(2, run, url, log, space=space, n=n, baselines=True, population=8)
    assert codes == [0, 0]
    assert len(log.workers) == 2
    assert len(log.ids) == len(set(log.ids))
    finished = SharedStudy(url).finished(SEARCH)
    assert len(finished) == n
    assert {c.id for c in (space.max, space.min)} <= set(finished)
    if kind == "postgresql":
        optuna.delete_study(study_name="search", storage=SharedStudy(url).storage)


# The first of the search, and one of the baselines.
@pytest.mark.parametrize("die_at", [1, 8])
def test_a_killed_search_started_again_loses_no_finished_trial(url, tmp_path, die_at):
    log = Log(tmp_path / "log", die_at)
    assert in_processes(1, run, url, log, n=6, baselines=True) == [-signal.SIGKILL]
    before = SharedStudy(url).finished()
    assert len(before) == die_at - 1
    log.die_at = None
    result = run(url, log, n=6, baselines=True, grace=1)
    assert before.items() <= SharedStudy(url).finished().items()
    # Only the one that was being read is read again.
    again = [x for x in set(log.ids) if log.ids.count(x) > 1]
    assert again in ([log.ids[die_at - 1]], [])
    assert {SPACE.max, SPACE.min} <= {s.config for s in result.of(NSGA2.name)}
    assert len(result.methods[RANDOM]) == 6


def test_of_two_workers_with_one_subnet_the_later_gives_up(url):
    ours, theirs = SharedStudy(url), SharedStudy(url)
    read = []

    def meanwhile(config):
        assert theirs.evaluate_one(SEARCH, lambda _: config, read.append, lambda _: 1.0, 9.0)
        assert theirs.evaluate_one(BASELINE, lambda _: config, read.append, lambda _: 1.0, 9.0)
        return 5.0

    assert ours.evaluate_one(SEARCH, lambda _: SPACE.min, meanwhile, lambda _: 1.0, 9.0)
    assert read == []
    assert theirs.finished() == {SPACE.min.id: (SPACE.min, 5.0)}


def test_of_two_workers_with_the_last_of_the_quota_the_later_gives_up(url):
    ours, theirs = SharedStudy(url), SharedStudy(url)
    read = []

    def meanwhile(config):
        arguments = (lambda _: SPACE.max, lambda _: read.append(1) or 2.0, lambda _: 1.0, 9.0)
        assert theirs.evaluate_one(SEARCH, *arguments, quota=1)
        assert read == []
        assert theirs.evaluate_one(SEARCH, *arguments, quota=2)
        assert theirs.evaluate_one(BASELINE, *arguments, quota=1)
        assert read == [1]
        return 5.0

    assert ours.evaluate_one(SEARCH, lambda _: SPACE.min, meanwhile, lambda _: 1.0, 9.0, quota=1)
    assert list(theirs.finished(SEARCH)) == [SPACE.min.id, SPACE.max.id]


def test_the_first_workers_measurements_stand_and_another_task_is_refused(url):
    task = {"search space": SPACE.to_dict(), "checkpoint": "abc"}
    assert SharedStudy(url).agree(task, lambda: {"rest": 1.0}) == {"rest": 1.0}
    assert SharedStudy(url).agree(task, lambda: {"rest": 2.0}) == {"rest": 1.0}
    other = {**task, "search space": SMALL.to_dict()}
    with pytest.raises(ConfigError, match="study 'search' is of another search space"):
        SharedStudy(url).agree(other, dict)
    with pytest.raises(ConfigError, match="study 'search' is of another checkpoint"):
        SharedStudy(url).agree({**task, "checkpoint": "abd"}, dict)
    with pytest.raises(ConfigError, match="an earlier version, which did not record its seed: ch"):
        SharedStudy(url).agree({**task, "seed": 1}, dict)


@pytest.mark.parametrize("n_trials", [0, 2])
def test_a_study_of_another_program_is_refused_and_left_as_it_is(url, n_trials):
    study = optuna.create_study(storage=url, study_name="params")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials)
    with pytest.raises(ConfigError, match=r"study 'params' of .* is not of todm-sb search"):
        SharedStudy(url, "params").agree({"cost": "params"}, dict)
    assert len(study.trials) == n_trials


def test_a_sign_of_life_that_fails_is_followed_by_others(url, monkeypatch):
    monkeypatch.setattr("todm_sb.search.study.HEARTBEAT", 0.01)
    study, beats = SharedStudy(url), []

    def record(trial):
        beats.append(trial)
        if len(beats) == 2:
            raise optuna.exceptions.StorageInternalError("the connection was closed")

    monkeypatch.setattr(study.storage, "record_heartbeat", record)

    def slow(config):
        deadline = time.monotonic() + 10
        while len(beats) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        return 5.0

    assert study.evaluate_one(SEARCH, lambda _: SPACE.min, slow, lambda _: 1.0, 9.0)
    assert study.finished() == {SPACE.min.id: (SPACE.min, 5.0)}
    assert len(beats) >= 4


def test_what_died_in_its_first_evaluation_holds_no_other_budget_up(url, tmp_path):
    log = Log(tmp_path / "log", die_at=1)
    assert in_processes(1, run, url, log, n=4, budgets=[4000.0]) == [-signal.SIGKILL]
    deadline = time.monotonic() + 30
    while SharedStudy(url, grace=1).limits() and time.monotonic() < deadline:
        time.sleep(0.2)
    log.die_at = None
    assert len(run(url, log, n=4, budgets=[5000.0], grace=1).methods[NSGA2.name]) == 4


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////no/such/folder/study.db",
        "postgresql://someone:secret@127.0.0.1:1/nothing",
        "nonsense",
        "nosuchdatabase://host/name",
    ],
)
def test_a_storage_that_cannot_be_reached_is_named_in_one_line_without_its_password(url):
    with pytest.raises(ConfigError, match=r"^storage ") as caught:
        SharedStudy(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["50% off", "what?", "a #b", "%41", "{v}", "é'\"&a=b", "a b;c"])
def test_an_sqlite_file_lies_where_its_path_says_whatever_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    path = tmp_path / name / "study.db"
    first = SharedStudy(path)
    assert first.agree({"cost": "params"}, lambda: {"rest": 1.0}) == {"rest": 1.0}
    assert SharedStudy(path).agree({"cost": "params"}, dict) == {"rest": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert [p.name for p in (tmp_path / name).iterdir()] == ["study.db"]


def test_an_sqlite_file_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^storage .*no%41/study\.db cannot be reached"):
        SharedStudy(tmp_path / "no%41" / "study.db")


def test_a_failed_evaluation_ends_the_worker_and_frees_the_subnet(url):
    def broken(config):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        run(url, broken)
    assert len(run(url, n=4).methods[NSGA2.name]) == 4


def test_a_claim_can_be_read_by_other_programs(url):
    run(url, n=4)
    trials = optuna.load_study(study_name="search", storage=url).trials
    claims = [t.user_attrs["subnet"] for t in trials if "subnet" in t.user_attrs]
    for claim in claims:
        config = SubnetConfig.pick(claim)
        assert json.loads(json.dumps(claim))["id"] == config.id
