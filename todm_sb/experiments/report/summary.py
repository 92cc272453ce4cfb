"""The beginning of a report: a line for each run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from todm_sb.search.budget import format_cost
from todm_sb.search.pareto import SearchResult
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.results import read_results
from todm_sb.utils.errors import written_by
from todm_sb.utils.tables import table_of

ENDS = ("max", "min")


def summary(folder: Path, runs: Sequence[Path]) -> str:
    """A table of runs: error rates and parameters of max and min, what training took, and the best
    subnet of each search.

    Args:
        folder: that the report is of.
        runs: folders of runs in it.
    """
    return "\n\n".join(["## Summary", table_of([_row(folder, run) for run in runs])])


def name_of(folder: Path, run: Path) -> str:
    """What a report of a folder calls a run in it."""
    return run.resolve().name if run == folder else str(run.relative_to(folder))


def _row(folder: Path, run: Path) -> dict[str, str]:
    tests = read_results(run)
    row, sizes = {"run": name_of(folder, run)}, {}
    for test, results in tests.items():
        with written_by("train.py", run / f"results_{test}.json"):
            of = {result["subnet"]: result for result in results}
            for end in filter(of.__contains__, ENDS):
                row[f"WER {end} %, {test}"] = f"{of[end]['WER']:.2f}"
                sizes[end] = f"{of[end]['parameters'] / 1e6:.2f} M"
    if not tests:
        row |= _validated(run)
    return row | {
        "parameters": " to ".join(sizes[end] for end in reversed(ENDS) if end in sizes),
        "training": _cost(run),
        "best of a search, dev": "; ".join(_found(run)),
    }


def _validated(run: Path) -> dict[str, str]:
    """Error rates of the last epoch, of a run that was not tested yet."""
    history = TrainingHistory(run)
    with written_by("train.py", history.path):
        valid = (history.read() or [{"valid": {}}])[-1]["valid"]
        return {
            f"WER {end} %, dev": f"{valid[f'WER {end}']:.2f}"
            for end in ENDS
            if f"WER {end}" in valid
        }


def _cost(run: Path) -> str:
    path = run / "cost.json"
    if not path.exists():
        return ""
    with written_by("train.py", path):
        cost = json.loads(path.read_text(encoding="utf-8"))
        return f"{cost['optimizer_steps']:,} steps, {cost['seconds']['train']['wall']:,.0f} s"


def _found(run: Path) -> list[str]:
    """The subnet of the lowest error rate of each search, e.g. ``params: 2.00 % at 1.5 M``."""
    found = []
    for path in sorted((run / "search").rglob("pareto.json")):
        result = SearchResult.load(path)
        best = result.front()[-1]
        cost = format_cost(best.costs[result.cost], result.cost)
        found.append(f"{path.parent.relative_to(run / 'search')}: {best.wer:.2f} % at {cost}")
    return found
