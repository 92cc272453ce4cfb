"""A whole comparison: cells that are run, choices on the dev set, and the cells that follow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from todm_sb.experiments.compare.archive import archive_cells, archived_cells, restore_cells
from todm_sb.experiments.compare.cells import Cell, Runs, known_runs
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

    Raises:
        ConfigError: if a pattern fits none.
    """

    def __init__(
        self, runs: Runs, plan: CellPlan, wanted: Sequence[Run], patterns: Sequence[str]
    ) -> None:
        self.runs, self.plan, self.wanted, self.patterns = runs, plan, wanted, patterns
        self.known = sorted({*wanted, *known_runs(runs.root)})
        self.tunings = plan.tunings(self.known[0])
        self.fixed = plan.cells(self.known)
        trials = [trial for tuning in self.tunings for trial in tuning.trials]
        self.chosen = [
            cell
            for cell in choose(self.fixed, patterns)
            if (cell.fold, cell.seed) in wanted or cell in trials
        ]

    def settled(self) -> list[Cell]:
        """The cells that the choices made so far have decided."""
        return [cell for x in self.tunings for cell in x.cells(self.runs, self.known)]

    def awaited(self) -> list[Cell]:
        """The cells asked for that a choice decides, as if it fell on the first of the trials."""
        return self._asked_for(
            [cell for x in self.tunings for cell in x.cells_of(x.trials[0], self.known)]
        )

    def _asked_for(self, cells: Sequence[Cell]) -> list[Cell]:
        return [
            cell
            for cell in cells
            if (cell.fold, cell.seed) in self.wanted
            and any(fnmatchcase(cell.name, pattern) for pattern in self.patterns)
        ]

    def archived(self, archive: Path) -> set[str]:
        """Names of the cells that are asked for and that the archive has."""
        return {cell.id for cell, _, _ in archived_cells(self.runs, self.chosen, archive)}

    def restore(self, archive: Path) -> None:
        """Makes the archive, if there is none, and takes from it; see :func:`restore_cells`.

        Raises:
            ConfigError: if no folder can be made of that name.
        """
        try:
            archive.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--archive={archive} cannot be a folder ({error.strerror}): give another"
            ) from error
        restore_cells(self.runs, self.fixed, archive)
        restore_cells(self.runs, self.settled(), archive)

    def check(self) -> None:
        """Of all cells, so that no table is written anew without a run that it had.

        Raises:
            ConfigError: if one was run with other options.
        """
        refuse_other_options(self.runs, [*self.fixed, *self.settled()])

    def run(self, jobs: int = 1, progressbar: bool = True, archive: Path | None = None) -> None:
        """Runs what is asked for, see :func:`run_cells`; what is finished goes to the archive, if
        that can be written then."""
        self.runs.freeze()
        trials = [(cell.fold, cell.seed) for cell in self.chosen]
        for fold, seed in dict.fromkeys([*self.wanted, *trials]):
            prepare_data(self.runs, Cell("data", seed, {}, fold))

        def ended(cell: Cell) -> None:
            try:
                if archive is not None:
                    archive_cells(self.runs, [cell], archive)
            except OSError as error:  # the other cells go on
                logger.warning("%s is not archived yet: %s", cell.id, error)

        run_cells(self.runs, self.chosen, jobs, progressbar, ended)
        run_cells(self.runs, self._asked_for(self.settled()), jobs, progressbar, ended)

    def archive(self, archive: Path) -> None:
        """See :func:`archive_cells`."""
        archive_cells(self.runs, [*self.fixed, *self.settled()], archive)

    def tables(self) -> dict[str, Any]:
        """Of all cells that are finished; see :meth:`Comparison.to_dict`."""
        cells = [*self.fixed, *self.settled()]
        return Comparison(self.runs, cells, self.plan.sizes, self.tunings).to_dict()
