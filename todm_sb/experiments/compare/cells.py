"""The runs of a comparison on disk: a cell is one run of ``train.py`` with a folder of its own.

A finished cell is known by its results and by the options and data it ran with; a cell that was
broken off goes on from its checkpoint. Whoever runs a cell holds the lock on its folder, as any
training does.
"""

from __future__ import annotations

import copy
import enum
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.experiments.compare.data import DATA_FILE, FOLDER, data_of, other_data
from todm_sb.experiments.compare.overrides import as_arguments, from_yaml, merge, resolved_options
from todm_sb.training.precision import fastest_precision
from todm_sb.training.recipe import RECIPE, Recipe, dump, replace_strings
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import read_record, write_atomic
from todm_sb.utils.locks import FolderInUseError, FolderLock, is_locked
from todm_sb.utils.own_files import write_own

logger = logging.getLogger(__name__)

# The command ``todm-sb``, and what trains a recipe.
TODM_SB = (sys.executable, "-m", "todm_sb.cli")
TRAIN = (*TODM_SB, "train")

# Keys that tell a cell's place, and so are not the user's to override.
OWN_KEYS = ("seed", "output_folder", "save_folder", "manifests", "tokenizer_folder")
# Beginnings of arguments that change when and where a run is done, not what comes out.
NO_BEARING = ("--device", "--ckpt_interval_", "--tqdm_", "--noprogressbar")

# Stands for the name of the fold, in overrides of the recipe.
FOLD = "{fold}"

# What the test stage of train.py writes for each test set.
RESULTS = ("errors", "results")


# What a run is called among those of the same name: its seed, after its fold if there are several.
Label = int | str


class State(enum.Enum):
    """How far a cell is."""

    NEW = "new"
    UNFINISHED = "unfinished"
    RUNNING = "running"
    FINISHED = "finished"
    OTHER_OPTIONS = "other options"


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        name: what is trained.
        seed: of the run.
        overrides: of the recipe, by key, as YAML.
        fold: of the data, which the run is trained and tested on; nothing where there is but one.
        place: the name of the cell whose run this one is, if not its own.
        serves: names of cells that wait for this one's error rate on dev.
    """

    name: str
    seed: int
    overrides: Mapping[str, str]
    fold: str = ""
    place: str | None = None
    serves: tuple[str, ...] = ()

    @property
    def run(self) -> Label:
        """Tells cells of the same name apart: the seed, after the fold if there are several."""
        return f"{self.fold}-{self.seed}" if self.fold else self.seed

    @property
    def id(self) -> str:
        """Of the run; also its folder."""
        return f"{self.place or self.name}/{self.run}"


class Runs:
    """The cells of a comparison in its folder.

    Cells of the same seed and fold share manifests, audio and tokenizer, in ``data/<run>``.

    Args:
        folder: of the comparison.
        recipe: with the user's overrides, for all cells.
        run_options: other arguments of the training, e.g. ``--device=cpu``.
        splits: names of the test sets.
        program: that trains a recipe, word by word.

    Raises:
        ConfigError: if the user overrides what tells a cell's place.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        run_options: Sequence[str] = (),
        splits: Sequence[str] = ("test",),
        program: Sequence[str] = TRAIN,
    ) -> None:
        self.root = folder
        self.program = list(program)
        self.hparams_file = recipe.file
        self.user = recipe.overrides
        self.run_options = list(run_options)
        self.splits = list(splits)
        # Resolved options and plain settings by cell: a recipe takes a while to read, and states
        # are asked for often.
        self._resolved: dict[tuple[Any, ...], tuple[dict[str, str], dict[str, Any]]] = {}
        taken = [key for key in OWN_KEYS if key in self.user]
        if taken:
            raise ConfigError(f"--{taken[0]} differs from run to run: the comparison sets it")

    def check_folds(self, folds: Sequence[str]) -> None:
        """Checks that cells of different folds get different data.

        Raises:
            ConfigError: if not, or if a fold's name is no name of a folder, or a test set is not
                called the same in all of them.
        """
        named = _of_fold(self.user, "1") != _of_fold(self.user, "2")
        if named != any(folds):
            lacking = f"override has {FOLD}" if any(folds) else "fold is named: give --folds, too"
            raise ConfigError(
                f"no {lacking}, as in --folds=1,2,3 --data_folder='/data/fold-{FOLD}'"
            )
        if own := [split for split in self.splits if FOLD in split]:
            raise ConfigError(
                f"the test set {own[0]} has another name in each fold: put {FOLD} into the name of "
                "its folder"
            )
        for fold in folds if named else []:
            if not re.fullmatch(r"\w[\w.-]*", fold):
                raise ConfigError(f"--folds: {fold!r} is no name of a folder")

    def freeze(self) -> None:
        """Uses a copy of the recipe from now on: who edits it does not change what is running.

        Raises:
            ConfigError: if somebody else's file of that name is there.
        """
        name = self.hparams_file.name
        text = dump(Recipe(self.hparams_file).tree())
        write_own(self.root, {name: text.encode()})
        self.hparams_file = self.root / name
        self._resolved.clear()

    def folder(self, cell: Cell) -> Path:
        """Where a cell's run writes."""
        return self.root / cell.id

    def overrides(self, cell: Cell, root: Path | None = None) -> CommentedMap:
        """All overrides of a cell.

        Args:
            cell: the cell.
            root: stands for the comparison's folder.
        """
        root = self.root if root is None else root
        data = root / "data" / str(cell.run)
        own = {
            "seed": cell.seed,
            "output_folder": Text(str(root / cell.id)),
            "manifests": Text(str(data / "manifests")),
            "tokenizer_folder": Text(str(data / "tokenizer")),
        }
        return merge(_of_fold(self.user, cell.fold), from_yaml(cell.overrides), own)

    def recipe(self, cell: Cell, root: Path | None = None) -> Recipe:
        """What a cell runs; arguments as of :meth:`overrides`."""
        return Recipe(self.hparams_file, self.overrides(cell, root))

    def options(self, cell: Cell) -> dict[str, str]:
        """Everything a cell's run depends on, wherever the comparison's folder lies; the precision
        that this machine trains in, where the recipe leaves it to the machine.

        Raises:
            ConfigError: if the overrides do not fit the recipe.
        """
        options = dict(self._resolve(cell)[0])
        given = any(option.startswith("--precision=") for option in self.run_options)
        if "fastest_precision" in options.get("precision", "") and not given:
            options["precision"] = fastest_precision()
        telling = [o for o in self.run_options if not o.startswith(NO_BEARING)]
        return {**options, "arguments": " ".join(sorted(telling))} if telling else options

    def data(self, cell: Cell) -> dict[str, str]:
        """Fingerprints of what a cell is trained and measured on, as far as that is there.

        Raises:
            ConfigError: if the overrides do not fit the recipe.
        """
        return data_of(self._resolve(cell)[1], self.root)

    def _resolve(self, cell: Cell) -> tuple[dict[str, str], dict[str, Any]]:
        key = (cell.id, *cell.overrides.items())
        if key not in self._resolved:
            recipe = self.recipe(cell, FOLDER)
            self._resolved[key] = resolved_options(recipe), recipe.settings()
        return self._resolved[key]

    def command(self, cell: Cell) -> list[str]:
        """The command that runs a cell, or goes on with it."""
        return [
            *self.program,
            str(self.hparams_file),
            *as_arguments(self.overrides(cell)),
            *self.run_options,
            "--noprogressbar",
        ]

    def state(self, cell: Cell) -> State:
        """How far a cell is."""
        folder = self.folder(cell)
        if not folder.exists():
            return State.NEW
        if self.difference(cell) is not None:
            return State.OTHER_OPTIONS
        if is_locked(folder):
            return State.RUNNING
        if all((folder / name).exists() for name in ("options.json", *self.written)):
            return State.FINISHED
        return State.UNFINISHED if (folder / RECIPE).exists() else State.NEW

    @property
    def written(self) -> list[str]:
        """The files with the figures of a finished cell."""
        return ["cost.json", *(f"{kind}_{s}.json" for kind in RESULTS for s in self.splits)]

    def difference(self, cell: Cell) -> str | None:
        """How options or data that a cell ran with differ from those wanted; None if they do not.

        A start that its data stopped has left none that count: they may be mended.
        """
        folder = self.folder(cell)
        record, started = folder / "options.json", (folder / RECIPE).exists()
        if not record.exists():
            return "it was not made by a comparison" if started else None
        was = json.loads(record.read_text(encoding="utf-8"))
        if difference := first_difference(was, self.options(cell)):
            return difference
        begun = started or any((folder / name).exists() for name in self.written)
        return other_data(read_record(folder / DATA_FILE), self.data(cell)) if begun else None

    def start(self, cell: Cell, environment: Mapping[str, str]) -> subprocess.Popen | None:
        """Runs a cell; its output goes to ``output.txt`` in its folder.

        Returns:
            The process; None if another has taken or finished the cell in the meantime.
        """
        if self.state(cell) not in (State.NEW, State.UNFINISHED):
            return None
        folder = self.folder(cell)
        try:
            lock = FolderLock(folder)
        except FolderInUseError:
            return None
        with lock:
            if lock.problem:
                logger.warning(lock.problem)
            write_atomic(folder / "options.json", json.dumps(self.options(cell), indent=1))
            known = {**read_record(folder / DATA_FILE), **self.data(cell)}
            write_atomic(folder / DATA_FILE, json.dumps(known, indent=1))
            with (folder / "output.txt").open("a") as output:
                return subprocess.Popen(
                    self.command(cell),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # The child keeps the lock, even when this process is killed.
                    env={**environment, **lock.handed_over()},
                    pass_fds=[lock.descriptor],
                )


def first_difference(was: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """How options differ; None if they do not. A key that is null is as if it were not there: so a
    recipe can get one, and cells from before it stay what they are."""
    for key in [*wanted, *was]:
        if was.get(key, "") != wanted.get(key, ""):
            return f"{key} was {was.get(key)}, is {wanted.get(key)}"
    return None


def _of_fold(overrides: Mapping[str, Any], fold: str) -> CommentedMap:
    """The overrides with the name of the fold in place of :data:`FOLD`."""

    def named(text: str) -> str:
        return Text(text.replace(FOLD, fold)) if FOLD in text else text

    tree = copy.deepcopy(CommentedMap(overrides))
    return replace_strings(tree, named) if fold else tree


def fold_of(run: Label) -> str:
    """The fold of what :attr:`Cell.run` calls a run; nothing where there is but one."""
    return str(run).rpartition("-")[0]


def known_runs(folder: Path) -> set[tuple[str, int]]:
    """Fold and seed of the cells in the folder of a comparison."""
    return runs_of_names({path.parent.name for path in folder.glob("*/*/options.json")})


def runs_of_names(names: Iterable[str]) -> set[tuple[str, int]]:
    """Inverse of :attr:`Cell.run`; what is none of its names is left out."""
    parts = [name.rpartition("-") for name in names]
    return {(fold, int(seed)) for fold, _, seed in parts if seed.isdigit()}
