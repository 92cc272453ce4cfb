"""A whole comparison: cells that are run, choices on the dev set, and the cells that follow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from todm_sb.experiments.compare.archive import (
    archive_cells,
    archived_cells,
    is_archived,
    restore_cells,
    runs_of_archive,
)
from todm_sb.experiments.compare.cells import Cell, Runs, State, known_runs
from todm_sb.experiments.compare.dev_sets import refuse_other_dev_sets
from todm_sb.experiments.compare.plan import CellPlan, choose
from todm_sb.experiments.compare.recipe import prepare_data
from todm_sb.experiments.compare.runner import refuse_other_options, run_cells
from todm_sb.experiments.compare.tables import Comparison
from todm_sb.experiments.compare.tuning import Run
from todm_sb.utils.errors import ConfigError

logger = logging.getLogger(__name__)


class Experiment:
    """The cells of a comparison.

    Args:
        runs: where they are.
        plan: which there are.
        wanted: the runs asked for; those whose cells are there already are of the tables, too.
        patterns: of the names of the cells asked for.
        archive: folder of the figures of finished cells, which need not be there; None for none.
            The trials are of the run whose trials are on disk or in it, else of the first that is
            wanted.

    Raises:
        ConfigError: if a pattern fits none.
    """

    def __init__(
        self,
        runs: Runs,
        plan: CellPlan,
        wanted: Sequence[Run],
        patterns: Sequence[str],
        archive: Path | None = None,
    ) -> None:
        self.runs, self.plan, self.wanted, self.patterns = runs, plan, wanted, patterns
        self.archive = archive
        self.known = sorted({*wanted, *known_runs(runs.root)})
        tried = self._tried()
        self.tunings = plan.tunings(tried)
        self.fixed = plan.cells(self.known, tried)
        trials = [trial for tuning in self.tunings for trial in tuning.trials]
        self.chosen = [
            cell
            for cell in choose(self.fixed, patterns)
            if (cell.fold, cell.seed) in wanted or cell in trials
        ]

    def settled(self) -> list[Cell]:
        """The cells that the choices made so far have decided."""
        return [cell for x in self.tunings for cell in x.cells(self.runs, self.known)]

    def decided(self) -> list[Cell]:
        """Those of them that are asked for."""
        return self._asked_for(self.settled())

    def awaited(self) -> list[Cell]:
        """The cells asked for that a choice is still to decide, as if it fell on the first of the
        trials."""
        waiting = [x for x in self.tunings if x.best(self.runs) is None]
        return self._asked_for(
            [cell for x in waiting for cell in x.cells_of(x.trials[0], self.known)]
        )

    def _tried(self) -> Run:
        """The run with most trials that are there; where none has any, the first that is wanted."""
        archived = runs_of_archive(self.archive) if self.archive else set()

        def begun(run: Run) -> int:
            # One in another's place is run without a choice, too.
            trials = [t for x in self.plan.tunings(run) for t in x.trials if t.place is None]
            return sum(map(self._is_there, trials))

        return max([*self.wanted, *self.known, *sorted(archived)], key=begun)

    def _is_there(self, cell: Cell) -> bool:
        archived = self.archive is not None and is_archived(self.archive, cell)
        return archived or self.runs.folder(cell).exists()

    def _asked_for(self, cells: Sequence[Cell]) -> list[Cell]:
        return [
            cell
            for cell in cells
            if (cell.fold, cell.seed) in self.wanted
            and any(fnmatchcase(cell.name, pattern) for pattern in self.patterns)
        ]

    def archived(self) -> set[str]:
        """Names of the cells that are asked for and that the archive has."""
        if self.archive is None:
            return set()
        cells = [*self.chosen, *self.decided()]
        return {cell.id for cell, _, _ in archived_cells(self.runs, cells, self.archive)}

    def restore(self) -> None:
        """Makes the archive, if there is none, and takes from it; see :func:`restore_cells`.

        Raises:
            ConfigError: if no folder can be made of that name.
        """
        if self.archive is None:
            return
        try:
            self.archive.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--archive={self.archive} cannot be a folder ({error.strerror}): give another"
            ) from error
        restore_cells(self.runs, self.fixed, self.archive)
        restore_cells(self.runs, self.settled(), self.archive)

    def check(self) -> None:
        """Of all cells, so that no table is written anew without a run that it had.

        Raises:
            ConfigError: if one was run with other options or data, or two of one fold and seed
                were measured on different dev sets.
        """
        cells = [*self.fixed, *self.settled()]
        refuse_other_options(self.runs, cells)
        finished = [cell for cell in cells if self.runs.state(cell) is State.FINISHED]
        refuse_other_dev_sets(self.runs, finished)

    def run(self, jobs: int = 1, progressbar: bool = True) -> None:
        """Runs what is asked for, see :func:`run_cells`; what is finished goes to the archive, if
        that can be written then. Data are prepared, and have to be there, for what is not."""
        self.runs.freeze()
        cells = [*self.chosen, *self.decided(), *self.awaited()]
        left = [cell for cell in cells if self.runs.state(cell) is not State.FINISHED]
        for fold, seed in dict.fromkeys((cell.fold, cell.seed) for cell in left):
            prepare_data(self.runs, Cell("data", seed, {}, fold))
        self.check()  # against the data that are there now

        def ended(cell: Cell) -> None:
            try:
                self.keep([cell])
            except OSError as error:  # the other cells go on
                logger.warning("%s is not archived yet: %s", cell.id, error)

        run_cells(self.runs, self.chosen, jobs, progressbar, ended)
        run_cells(self.runs, self.decided(), jobs, progressbar, ended)

    def keep(self, cells: Sequence[Cell] | None = None) -> None:
        """Has the archive, if there is one, hold what is finished of these, or of all, cells."""
        if self.archive is not None:
            cells = [*self.fixed, *self.settled()] if cells is None else cells
            archive_cells(self.runs, cells, self.archive)

    def tables(self) -> dict[str, Any]:
        """Of all cells that are finished; see :meth:`Comparison.to_dict`.

        Raises:
            ConfigError: see :meth:`check`: data may have changed while cells were run.
        """
        self.check()
        cells = [*self.fixed, *self.settled()]
        return Comparison(self.runs, cells, self.plan.sizes, self.tunings).to_dict()
