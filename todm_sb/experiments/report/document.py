"""A report of everything below a folder: all runs in short, comparisons, searches, each run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ruamel.yaml import YAML

from todm_sb.experiments.compare.tables import comparison_markdown
from todm_sb.experiments.report.html import to_html
from todm_sb.experiments.report.summary import name_of, summary
from todm_sb.search.budget import format_cost
from todm_sb.search.pareto import SearchResult
from todm_sb.space import SearchSpace
from todm_sb.training import provenance
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.recipe import RECIPE
from todm_sb.training.results import read_results, results_table
from todm_sb.utils.errors import ConfigError, recipe_errors, written_by
from todm_sb.utils.own_files import write_own
from todm_sb.utils.tables import markdown_table, scored_text, table_of


def write_report(folder: Path) -> tuple[Path, Path]:
    """Writes ``report.md`` and ``report.html`` into a folder, from the results below it.

    Args:
        folder: ``output_folder`` of ``train.py`` or ``todm-sb compare``, or one that holds such.

    Returns:
        The paths of both.

    Raises:
        ConfigError: if there is nothing to report, a result is damaged, or somebody else's file of
            that name is there.
    """
    runs = sorted(path.parent for path in folder.rglob("history.jsonl"))
    sections = [
        *([summary(folder, runs)] if runs else []),
        *(_comparison(folder, path) for path in sorted(folder.rglob("comparison.json"))),
        *(_search(folder, path) for path in sorted(folder.rglob("pareto.json"))),
        *_runs(folder, runs),
    ]
    if not sections:
        raise ConfigError(
            f"{folder} holds no results: give the output_folder of train.py or todm-sb compare"
        )
    text = "\n\n".join([f"# Report of {folder.resolve().name}", *sections, *_versions(folder)])
    markdown, html = folder / "report.md", folder / "report.html"
    files = {markdown.name: f"{text}\n", html.name: to_html(text, folder)}
    write_own(folder, {name: content.encode() for name, content in files.items()})
    return markdown, html


def _comparison(folder: Path, path: Path) -> str:
    with written_by("todm-sb compare", path):
        data = json.loads(path.read_text(encoding="utf-8"))
        command, tables = data["command"], comparison_markdown(data, "###")
    return "\n\n".join(
        [
            f"## Comparison{_in(folder, path.parent)}",
            _code(command),
            _image(folder, path.with_suffix(".png"), "Error rate against size"),
            tables.rstrip(),
        ]
    )


def _search(folder: Path, path: Path) -> str:
    result = SearchResult.load(path)
    front = [
        {
            result.cost: format_cost(subnet.costs[result.cost], result.cost),
            "WER %": f"{subnet.wer:.2f}",
            **subnet.config.describe(),
            "layers": ", ".join(map(str, subnet.config.layers)),
        }
        for subnet in result.front()
    ]
    evaluated = ", ".join(f"{name} {len(ids)}" for name, ids in result.methods.items())
    return "\n\n".join(
        [
            f"## Pareto front, {result.cost}{_in(folder, path.parent)}",
            f"Subnets evaluated: {evaluated}. Error rates are of the dev set, of networks in "
            f"{result.precision}.",
            scored_text(result.scored),
            _image(folder, path.with_suffix(".png"), "Error rate against cost"),
            table_of(front),
        ]
    )


def _runs(folder: Path, runs: Sequence[Path]) -> Iterator[str]:
    if runs:
        yield "## Training runs"
    shown: Any = None
    for run in runs:
        parts = [f"### {name_of(folder, run)}"]
        if command := provenance.read(run).get("command"):
            parts.append(_code(command))
        space = _search_space(run)
        # Runs of one space follow one another; it is told once.
        if space != shown:
            parts.append(space)
            shown = space
        parts.append(_progress(run))
        parts.append(_image(folder, run / "curves.png", "Losses and error rates of each epoch"))
        for name, results in read_results(run).items():
            with written_by("train.py", run / f"results_{name}.json"):
                parts += [f"Test set {name}:", results_table(results)]
        yield "\n\n".join(part for part in parts if part)


def _search_space(run: Path) -> str:
    # Nothing of the recipe is built: only this key is read.
    path = run / RECIPE
    if not path.exists():
        return ""
    with recipe_errors(path):
        space = YAML().load(path.read_text(encoding="utf-8")).get("search_space")
        return f"Search space: {SearchSpace.from_dict(space).describe()}." if space else ""


def _progress(run: Path) -> str:
    epochs = len(TrainingHistory(run).read())
    cost = run / "cost.json"
    if not cost.exists():
        return f"{epochs} epochs."
    with written_by("train.py", cost):
        data = json.loads(cost.read_text(encoding="utf-8"))
        seconds = data["seconds"]["train"]
        # Costs written before have the processor time of the first process alone.
        processes = f"{data['processes']} processes of " if data.get("processes", 1) > 1 else ""
        return (
            f"{epochs} epochs, {data['optimizer_steps']} optimizer steps, {seconds['wall']:.0f} s "
            f"({seconds['processor']:.0f} s of processor time, {processes}{data['threads']} "
            "threads)."
        )


def _versions(folder: Path) -> Iterator[str]:
    """The versions that the runs below the folder recorded; each combination once."""
    found = []
    for path in sorted(folder.rglob("provenance.json")):
        with written_by("train.py", path):
            recorded = provenance.read(path.parent)["versions"]
            versions = markdown_table(("", "version"), list(recorded.items()))
        if versions not in found:
            found.append(versions)
    if found:
        yield "## Versions"
    yield from found


def _in(folder: Path, place: Path) -> str:
    return "" if place == folder else f": {place.relative_to(folder)}"


def _code(text: str) -> str:
    return f"```\n{text}\n```"


def _image(folder: Path, path: Path, description: str) -> str:
    return f"![{description}]({quote(str(path.relative_to(folder)))})" if path.exists() else ""
