"""One search, shared by any number of workers: an Optuna study in a database.

An evaluation is a trial; its subnet and who asked for it are written to the trial before the
evaluation begins. That is the claim on the subnet, and it needs no lock: a worker writes its claim
and *then* looks for others. Of two workers with the same subnet, or with the last of those asked
for, at least the later writer sees the other's claim and gives its own up, so that never both
evaluate.

A worker that dies leaves a running trial behind. Its heartbeat stops, Optuna declares it failed,
and its claim with it.
"""

from __future__ import annotations

import math
import random
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from todm_sb.space import SubnetConfig
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.extras import installing, named_packages

with named_packages("the search"):
    import optuna
    import sqlalchemy
    from optuna.trial import FrozenTrial, TrialState

# It sets its own level when it is imported, and tells of each trial.
optuna.logging.set_verbosity(optuna.logging.WARNING)

# Seconds between signs of life of a trial, and without one until it counts as dead.
HEARTBEAT = 10
GRACE = 60
# Longest pause in seconds after a claim that was given up.
PAUSE = 0.2

SEARCH, BASELINE = "search", "baseline"
DATABASE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)
# Of error rate and cost.
DIRECTIONS = [optuna.study.StudyDirection.MINIMIZE] * 2


class SharedStudy:
    """Evaluated subnets and claims on subnets in a storage that workers share.

    Args:
        storage: SQLAlchemy URL, e.g. ``postgresql://host/database``, or the path of an SQLite file,
            whatever characters it has.
        name: of the study; made if there is none.
        population_size: subnets of a generation, for algorithms that have such.
        grace: seconds without a sign of life until a trial counts as dead.

    Raises:
        ConfigError: if the storage cannot be reached.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str = "search",
        population_size: int = 20,
        grace: int = GRACE,
    ) -> None:
        self.name = name
        self.population_size = population_size
        # SQLAlchemy 2.0 would look for the older psycopg2.
        if isinstance(storage, str):
            storage = storage.replace("postgresql://", "postgresql+psycopg://", 1)
        self._place = storage
        with self.connected():
            self.storage = _open_storage(self._place, grace)
            # Optuna's own, for algorithms that set its sampler.
            self.search = optuna.create_study(
                storage=self.storage,
                sampler=optuna.samplers.RandomSampler(),
                study_name=name,
                directions=DIRECTIONS,
                load_if_exists=True,
            )
            # Trials of another sampler belong to no generation: NSGA-II does not breed from them.
            baseline = optuna.load_study(
                study_name=name, storage=self.storage, sampler=optuna.samplers.RandomSampler()
            )
        self._studies = {SEARCH: self.search, BASELINE: baseline}

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Turns a database's errors within the block into one line.

        Raises:
            ConfigError: if the storage cannot be reached.
        """
        try:
            yield
        except ImportError as error:
            raise ConfigError(
                f"storage {_shown(self._place)} needs a driver ({error}); for PostgreSQL: "
                f"{installing('postgres')}"
            ) from None
        except DATABASE_ERRORS as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
            raise ConfigError(
                f"storage {_shown(self._place)} cannot be reached: {reason}"
            ) from None

    def agree(self, task: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Makes sure that all workers search for the same, with the same measurements.

        Args:
            task: what is searched, in plain types.
            measure: measures what may differ between workers; the first worker's word stands.

        Returns:
            The first worker's measurements.

        Raises:
            ConfigError: if the study is of another task, or not a search's, or the storage cannot
                be reached.
        """
        with self.connected():
            agreements = self._agreements()
            others = not agreements and self.search.get_trials(deepcopy=False)
            if others or self.search.directions != DIRECTIONS:
                raise ConfigError(
                    f"study {self.name!r} of {_shown(self._place)} is not of todm-sb search: "
                    "choose another name with --study"
                )
            if not agreements:
                # A study's attributes can be overwritten; the first of its trials cannot.
                attributes = {"agreement": {"task": task, "measured": measure()}}
                trial = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=attributes)
                self._studies[SEARCH].add_trial(trial)
            agreement = self._agreements()[0]
        for key, value in task.items():
            if key not in agreement["task"]:
                raise ConfigError(
                    f"study {self.name!r} was begun by an earlier version, which did not record "
                    f"its {key}: choose another name with --study"
                )
            if (theirs := agreement["task"][key]) != value:
                raise ConfigError(
                    f"study {self.name!r} is of another {key} ({theirs}, not {value}): "
                    "choose another name with --study"
                )
        return agreement["measured"]

    def _agreements(self) -> list[dict[str, Any]]:
        trials = sorted(self._trials(TrialState.FAIL), key=lambda trial: trial.number)
        return [t.user_attrs["agreement"] for t in trials if "agreement" in t.user_attrs]

    def finished(self, by: str | None = None) -> dict[str, tuple[SubnetConfig, float]]:
        """Every finished subnet and its error rate, by id, in the order of the trials.

        Args:
            by: only those that :data:`SEARCH` or :data:`BASELINE` asked for.
        """
        return {
            claim_of(t)["id"]: (config_of(t), t.values[0])
            for t in self._trials(TrialState.COMPLETE)
            if by in (None, claim_of(t)["by"])
        }

    def limits(self) -> set[float]:
        """The limits that subnets were searched within, the dead workers' left out."""
        self._fail_the_dead()
        trials = self._trials(TrialState.COMPLETE, TrialState.RUNNING)
        claims = [t.user_attrs["subnet"] for t in trials if "subnet" in t.user_attrs]
        return {claim["limit"] for claim in claims if claim["by"] == SEARCH}

    def running(self, by: str | None = None) -> set[str]:
        """The ids of the subnets that are being evaluated, the dead ones' left out."""
        self._fail_the_dead()
        claims = [t.user_attrs.get("subnet") for t in self._trials(TrialState.RUNNING)]
        return {claim["id"] for claim in claims if claim and by in (None, claim["by"])}

    def evaluate_one(
        self,
        by: str,
        propose: Callable[[FrozenTrial], SubnetConfig | None],
        evaluate: Callable[[SubnetConfig], float],
        cost: Callable[[SubnetConfig], float],
        limit: float,
        quota: float = math.inf,
    ) -> bool:
        """Evaluates a subnet, unless another worker has claimed it, or the last one of the quota,
        in the same moment.

        Args:
            by: :data:`SEARCH` or :data:`BASELINE`.
            propose: chooses a subnet for a trial, or None to give up.
            evaluate: gives its error rate; not called if that is known.
            cost: gives its cost.
            limit: largest cost that any budget allows.
            quota: subnets that are to be evaluated for ``by`` altogether.

        Returns:
            False if none was proposed.
        """
        study = self._studies[by]
        with _quiet():
            trial = study.ask()
        values = None
        state = TrialState.FAIL
        try:
            with self._heartbeat(trial._trial_id):
                config = propose(self.storage.get_trial(trial._trial_id))
                if config is None:
                    return False
                claim = {"id": config.id, **config.to_dict(), "by": by, "limit": limit}
                trial.set_user_attr("subnet", claim)
                trial.set_constraint("budget", cost(config) - limit)
                if self._claimed_elsewhere(config, by, trial.number, quota):
                    state = TrialState.PRUNED
                    # Workers that run in step would meet again.
                    time.sleep(PAUSE * random.Random().random())
                else:
                    known = self.finished().get(config.id)
                    error_rate = evaluate(config) if known is None else known[1]
                    values, state = (error_rate, cost(config)), TrialState.COMPLETE
        except optuna.exceptions.UpdateFinishedTrialError:
            pass  # this worker slept so long that it was taken for dead
        finally:
            study.tell(trial, values, state, skip_if_finished=True)
        return True

    def _claimed_elsewhere(self, config: SubnetConfig, by: str, number: int, quota: float) -> bool:
        """Whether another trial evaluates the subnet, or the same asker has it already, or has as
        many as it asked for."""
        others = [
            (other.state, claim)
            for other in self._trials(TrialState.RUNNING, TrialState.COMPLETE)
            if other.number != number and (claim := other.user_attrs.get("subnet"))
        ]
        if len({claim["id"] for _, claim in others if claim["by"] == by}) >= quota:
            return True
        return any(
            claim["id"] == config.id and (state == TrialState.RUNNING or claim["by"] == by)
            for state, claim in others
        )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._studies[SEARCH].get_trials(deepcopy=False, states=states)

    def _fail_the_dead(self) -> None:
        with _quiet():
            optuna.storages.fail_stale_trials(self._studies[SEARCH])

    @contextmanager
    def _heartbeat(self, trial_id: int) -> Iterator[None]:
        """Signs of life while the block runs, the first before it: no claim without one."""
        self.storage.record_heartbeat(trial_id)
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT):
                # One that is missed does no harm: the next one comes in time.
                with suppress(*DATABASE_ERRORS):
                    self.storage.record_heartbeat(trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def claim_of(trial: FrozenTrial) -> dict[str, Any]:
    """The subnet, its id, and who asked for it."""
    return trial.user_attrs["subnet"]


def config_of(trial: FrozenTrial) -> SubnetConfig:
    """The subnet of a trial."""
    return SubnetConfig.pick(claim_of(trial))


def _open_storage(place: str | Path, grace: int, attempts: int = 3) -> optuna.storages.RDBStorage:
    url, options = _engine(place)
    try:
        with _quiet():
            return optuna.storages.RDBStorage(
                url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=grace
            )
    except sqlalchemy.exc.SQLAlchemyError:
        # Of workers that start together, only one can make the tables.
        if attempts == 1:
            raise
        time.sleep(0.5)
        return _open_storage(place, grace, attempts - 1)


def _engine(place: str | Path) -> tuple[str, dict[str, Any]]:
    """SQLAlchemy's URL and options.

    Workers on one SQLite file wait for each other; a server answers soon or never.
    """
    if isinstance(place, Path):
        # A path in a URL would be taken apart at ? and decoded at %.
        connect = partial(sqlite3.connect, place, timeout=60, check_same_thread=False)
        return "sqlite://", {"creator": connect, "poolclass": sqlalchemy.pool.QueuePool}
    wait = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}}
    backend = sqlalchemy.engine.make_url(place).get_backend_name()
    return place, {"connect_args": wait.get(backend, {})}


def _shown(place: str | Path) -> str:
    """The URL without its password."""
    if isinstance(place, Path):
        return str(place)
    try:
        return sqlalchemy.engine.make_url(place).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return repr(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns at each use of its heartbeat that it may change, and outside ``optimize``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield
