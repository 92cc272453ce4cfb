"""The paper's table and the ablation, from the finished cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from todm_sb.experiments.compare.cells import Cell, Label, Runs, State
from todm_sb.experiments.compare.plan import ABLATION, INDIVIDUAL, SUPERNET, TUNED
from todm_sb.experiments.compare.results import Cost, Pair, compare_error_rates, read_tested
from todm_sb.experiments.compare.sizes import Size
from todm_sb.experiments.compare.tuning import Tuning
from todm_sb.space import SubnetConfig
from todm_sb.utils.tables import markdown_table, scored_text


class Comparison:
    """Reads the finished cells.

    Args:
        runs: where they are.
        cells: all of the comparison.
        sizes: from min to max.
        tunings: what is chosen on dev.
    """

    def __init__(
        self,
        runs: Runs,
        cells: Sequence[Cell],
        sizes: Sequence[Size],
        tunings: Sequence[Tuning] = (),
    ) -> None:
        self.tunings = tunings
        self.runs = runs
        self.sizes = sizes
        self.names = list(dict.fromkeys(cell.name for cell in cells))
        self.finished = {
            (cell.name, cell.run): cell for cell in cells if runs.state(cell) is State.FINISHED
        }

    def to_dict(self) -> dict[str, Any]:
        """All that is known so far, for JSON."""
        return {
            "sizes": [
                {"size": size.name, **size.subnet.to_dict(), "parameters": size.parameters}
                for size in self.sizes
            ],
            "splits": {
                split: {
                    "sizes": self._size_rows(split),
                    "tuned": self._tuned_rows(split),
                    "ablation": self._ablation_rows(split),
                    "scored": self._scored(split),
                }
                for split in self.runs.splits
            },
            "tunings": {tuning.name: tuning.to_dict(self.runs) for tuning in self.tunings},
            "cost": self._cost(),
        }

    def _scored(self, split: str) -> list[dict[str, Any]]:
        """What the error rates are of, and in which seeds, whose test sets can differ."""
        seeds_of: dict[str, tuple[dict[str, Any], list[Label]]] = {}
        for name, seed in self.finished:
            scored = read_tested(self._folder(name, seed), split).scored
            _, seeds = seeds_of.setdefault(json.dumps(scored), (scored, []))
            if seed not in seeds:
                seeds.append(seed)
        return [{**scored, "seeds": seeds} for scored, seeds in seeds_of.values()]

    def _seeds(self, *names: str) -> list[Label]:
        """The runs, as seeds or folds and seeds, for which all of these are finished."""
        seeds = dict.fromkeys(seed for _, seed in self.finished)
        return [s for s in seeds if all((name, s) in self.finished for name in names)]

    def _folder(self, name: str, seed: Label) -> Path:
        return self.runs.folder(self.finished[name, seed])

    def _size_rows(self, split: str) -> list[dict[str, Any]]:
        rows = []
        for size in self.sizes:
            pairs = self._pairs(split, [(size, INDIVIDUAL + size.name, None)])
            if pairs:
                seconds = self._seconds(INDIVIDUAL + size.name, [*pairs])
                rows.append(_row(size.name, pairs) | {"parameters": size.parameters, **seconds})
        if len(rows) == len(self.sizes) and len({tuple(row["seeds"]) for row in rows}) == 1:
            others = [(size, INDIVIDUAL + size.name, None) for size in self.sizes]
            rows.append(_row("mean", self._pairs(split, others)))
        return rows

    def _tuned_rows(self, split: str) -> list[dict[str, Any]]:
        rows = []
        for size in self.sizes:
            name = TUNED + size.name
            if pairs := self._pairs(split, [(size, name, None)]):
                seconds = self._seconds(name, [*pairs])
                rows.append(_row(name, pairs) | {"parameters": size.parameters, **seconds})
        return rows

    def _ablation_rows(self, split: str) -> list[dict[str, Any]]:
        rows = []
        for name in self.names:
            if name.startswith(ABLATION):
                others = [(size, name, size.subnet) for size in self.sizes]
                if pairs := self._pairs(split, others):
                    seconds = self._seconds(name, [*pairs])
                    rows.append(_row(name.removeprefix(ABLATION), pairs) | seconds)
        return rows

    def _pairs(
        self, split: str, others: Sequence[tuple[Size, str, SubnetConfig | None]]
    ) -> dict[Label, list[Pair]]:
        """By seed, the supernet's subnet of each size beside another cell's subnet (None: max);
        seeds for which not all is finished are left out."""
        return {
            seed: [
                (
                    read_tested(self._folder(SUPERNET, seed), split, size.subnet),
                    read_tested(self._folder(name, seed), split, subnet),
                )
                for size, name, subnet in others
            ]
            for seed in self._seeds(SUPERNET, *(name for _, name, _ in others))
        }

    def _seconds(self, name: str, seeds: Sequence[Label]) -> dict[str, list[float]]:
        """Processor seconds of a cell's training and of the supernet's, means over these seeds."""
        both = (
            fmean(Cost.read(self._folder(x, seed)).processor for seed in seeds)
            for x in (name, SUPERNET)
        )
        return {"seconds": [*both]}

    def _cost(self) -> dict[str, Any]:
        """Of each kind of cell, the mean over its seeds; the optimizer steps in each seed; and the
        supernet's cost, relative to all individual networks together."""
        costs = {key: Cost.read(self.runs.folder(cell)) for key, cell in self.finished.items()}
        steps: dict[str, dict[str, int]] = {}
        for (name, seed), cost in costs.items():
            steps.setdefault(str(seed), {})[name] = cost.optimizer_steps
        of_name = {
            name: [cost for (other, _), cost in costs.items() if other == name]
            for name in self.names
        }
        means = {
            name: {key: fmean(getattr(c, key) for c in found) for key in vars(found[0])}
            for name, found in of_name.items()
            if found
        }
        individual = [INDIVIDUAL + size.name for size in self.sizes]
        seeds = self._seeds(SUPERNET, *individual)

        def ratio(key: str) -> float:
            supernet = sum(getattr(costs[SUPERNET, s], key) for s in seeds)
            return supernet / sum(getattr(costs[n, s], key) for s in seeds for n in individual)

        keys = ("wall", "processor", "with_validation")
        ratios = {key: ratio(key) for key in keys if seeds}
        return {"means": means, "steps": steps, "seeds": seeds, "ratio": ratios}


def _row(name: str, pairs: dict[Label, list[Pair]]) -> dict[str, Any]:
    return {"name": name, "seeds": list(pairs), **compare_error_rates(pairs)}


def comparison_markdown(data: dict[str, Any], heading: str = "##") -> str:
    """The tables for reading.

    Args:
        data: of :meth:`Comparison.to_dict`.
        heading: marks the headings.
    """
    parts, note = [], _note([*data["splits"].values()])
    for split, tables in data["splits"].items():
        parts.append(f"{heading} Subnets and individual networks, {split}")
        parts.append(_sizes_table([*tables["sizes"], *tables["tuned"]]))
        for scored in tables["scored"]:
            seeds = (
                f"Seeds {', '.join(map(str, scored['seeds']))}: " if tables["scored"][1:] else ""
            )
            parts.append(seeds + scored_text(scored))
        if tables["ablation"]:
            parts.append(f"{heading} Ablation, {split}")
            parts.append(_ablation_table(tables["ablation"]))
    tunings = _tunings_text(data["tunings"])
    return "\n\n".join([*parts, *tunings, _cost_text(data["cost"]), note]) + "\n"


def _tunings_text(tunings: dict[str, Any]) -> list[str]:
    """A sentence a choice."""

    def rates(found: dict[str, float]) -> str:
        return ", ".join(f"{name} {wer:.2f}" for name, wer in found.items()) or "none is finished"

    return [
        f"{name}: {x['chosen'] or 'not chosen yet'}, by WER % on dev ({rates(x['dev WER'])})."
        for name, x in tunings.items()
    ]


# Networks that the paper's table has, whose trainings a supernet saves.
OF_THE_PAPER = 5

# A difference of so many percent at most is none, in the words of the verdict.
MATCHES = 3.0


def _note(tables: Sequence[dict[str, Any]]) -> str:
    """What the columns of the tables mean.

    Args:
        tables: of each test set.
    """
    kinds = ("sizes", "tuned", "ablation")
    rows = [row for table in tables for kind in kinds for row in table[kind]]
    units = sorted({f"{row['units']} {row['unit']}" for row in rows})
    return (
        "Relative differences are negative where the subnets of the full method make fewer errors. "
        f"Intervals: 95 %, paired bootstrap over {' or '.join(units) or 'utterances'} and, where "
        "there are several, over seeds; few seeds make them too narrow. Verdict: better where the "
        f"interval lies below 0, matches where below +{MATCHES:g} %, else worse where above 0."
    )


def verdict(low: float | None, high: float | None) -> str:
    """What an interval of a relative difference in percent says: ``better``, ``matches``,
    ``worse`` or, ``-``, nothing.

    Args:
        low, high: None for infinity.
    """
    high = math.inf if high is None else high
    if high < 0:
        return "better"
    if high < MATCHES:
        return "matches"
    return "worse" if low is None or low > 0 else "-"


def _sizes_table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "No size is finished yet."

    def line(row: dict[str, Any]) -> tuple[str, ...]:
        parameters = f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""
        return (
            row["name"],
            parameters,
            f"{row['WER of the other']:.2f}",
            f"{row['WER']:.2f}",
            *_difference(row),
            *_seconds(row),
        )

    head = (
        "layers x FFN",
        "parameters",
        "WER individual %",
        "WER subnet %",
        "difference %",
        "95 % interval",
        "verdict",
        "difference by seed, %",
        "training of the individual, s",
        "of the supernet, s",
    )
    return markdown_table(head, [line(row) for row in rows])


def _ablation_table(rows: Sequence[dict[str, Any]]) -> str:
    head = (
        "without, or instead",
        "its WER %",
        "WER of the full method %",
        "difference %",
        "95 % interval",
        "verdict",
        "difference by seed, %",
        "its training, s",
        "of the full method, s",
    )
    lines = [
        (
            row["name"],
            f"{row['WER of the other']:.2f}",
            f"{row['WER']:.2f}",
            *_difference(row),
            *_seconds(row),
        )
        for row in rows
    ]
    return markdown_table(head, lines)


def _difference(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """The difference, its interval, what that says, and the difference in each seed."""
    found = row["relative difference"]
    by_seed = ", ".join(f"{seed}: {_signed(x)}" for seed, x in row["by seed"].items())
    verdict_ = verdict(found["low"], found["high"])
    return _signed(found["value"]), _bounds(found), verdict_, by_seed


def difference_text(found: Mapping[str, float | None]) -> str:
    """A relative difference and its interval, e.g. ``-5.7 (-8.4 to -3.4)``.

    Args:
        found: of :meth:`todm_sb.experiments.compare.bootstrap.Interval.to_dict`.
    """
    return f"{_signed(found['value'])} ({_bounds(found)})"


def _bounds(found: Mapping[str, float | None]) -> str:
    return f"{_signed(found['low'])} to {_signed(found['high'])}"


def _signed(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:+.1f}"


def _seconds(row: dict[str, Any]) -> tuple[str, ...]:
    """What a network's training took, and the supernet's for the same seeds; the mean has none."""
    return tuple(f"{x:.0f}" for x in row["seconds"]) if "seconds" in row else ("", "")


def _cost_text(cost: dict[str, Any]) -> str:
    means, lines = cost["means"], []
    if cost["ratio"]:
        ratio = cost["ratio"]
        lines.append(
            f"Supernet to all individual networks together: {ratio['processor']:.2f} in processor "
            f"time ({ratio['with_validation']:.2f} with validation), {ratio['wall']:.2f} in wall "
            "time."
        )
        n = sum(name.startswith(INDIVIDUAL) for name in means)
        if n != OF_THE_PAPER:
            lines.append(
                f"To {OF_THE_PAPER} that cost as much on average as these {n}: "
                f"{ratio['processor'] * n / OF_THE_PAPER:.2f} in processor time."
            )
    lines += _steps_text(cost["steps"])
    lines.append("Seconds are processor time of the training epochs, without validation.")
    return " ".join(lines)


def _steps_text(steps: dict[str, dict[str, int]]) -> list[str]:
    """A sentence on the optimizer steps of each seed's runs, by their names."""
    found = {seed: set(of.values()) for seed, of in steps.items()}
    if differing := [seed for seed, numbers in found.items() if len(numbers) > 1]:
        told = [", ".join(f"{name} {n}" for name, n in steps[seed].items()) for seed in differing]
        by_seed = "; ".join(map(": ".join, zip(differing, told, strict=True)))
        return [f"The runs differ in optimizer steps. {by_seed}."]
    if len(set().union(*found.values())) > 1:
        by_seed = ", ".join(f"{seed}: {min(numbers)}" for seed, numbers in found.items())
        return [f"All runs of a seed took equally many optimizer steps. {by_seed}."]
    return [f"Every run took {min(numbers)} optimizer steps." for numbers in [*found.values()][:1]]
