"""``todm-sb compare``: a supernet's subnets against networks trained by themselves, and the
supernet against those that lack one of its techniques.

todm-sb compare hparams/mini.yaml --seeds=1,2,3
todm-sb compare hparams/mini.yaml --seeds=1,2,3 --cells='*' --jobs=2
todm-sb compare hparams/mini.yaml --seeds=1,2,3 --cells='*' --dry-run

For each seed it trains the supernet and, at five sizes, individual networks with the same recipe
and the same number of steps; `ablation-*` are supernets that lack a technique each. Each run is a
cell with a folder of its own: finished cells are kept, unfinished ones go on from their checkpoint,
so that the same command goes on where it was stopped; with ``--archive``, cells that were finished
on another machine count as well. Any key of the YAML can be overridden, for all cells, as
``--key=value``. The tables are of all cells that are finished.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path

from todm_sb.cli.main import OK
from todm_sb.dataio.split import manifests_of_tests
from todm_sb.experiments.compare.archive import archive_cells, restore_cells
from todm_sb.experiments.compare.cells import Cell, Runs, known_seeds
from todm_sb.experiments.compare.figure import drawn
from todm_sb.experiments.compare.plan import choose, plan_cells
from todm_sb.experiments.compare.recipe import load_for_planning, prepare_data
from todm_sb.experiments.compare.runner import refuse_other_options, run_cells
from todm_sb.experiments.compare.sizes import evenly_spaced_sizes
from todm_sb.experiments.compare.tables import Comparison, comparison_markdown
from todm_sb.supernet import count_parameters
from todm_sb.training.arguments import parse_arguments, run_option_arguments
from todm_sb.training.settings import REQUIRED
from todm_sb.utils.arguments import at_least, beside_a_recipe, path, positive
from todm_sb.utils.own_files import check_own, write_own

FILES = ("comparison.json", "comparison.md", "comparison.png")


def main(argv: list[str]) -> int:
    """Runs the cells, and writes the tables of those that are finished.

    Returns:
        The exit code.
    """
    # So that the running cells are ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments, others = parse(argv)
    recipe, options = parse_arguments([str(arguments.hparams), *others])
    hparams = load_for_planning(recipe)
    sizes = evenly_spaced_sizes(
        hparams["space"], lambda c: count_parameters(hparams["model"], c), arguments.sizes
    )
    folder = arguments.output_folder
    cells = plan_cells(
        sizes,
        hparams["named_subnets"] or {},
        hparams["n_random"],
        sorted({*arguments.seeds, *known_seeds(folder)}),
        arguments.adamw_lr,
    )
    splits = list(manifests_of_tests(hparams))
    runs = Runs(folder, recipe, run_option_arguments(options), splits)
    chosen = [c for c in choose(cells, arguments.cells) if c.seed in arguments.seeds]
    if arguments.dry_run:
        show(runs, chosen)
        return OK
    if arguments.archive is not None:
        restore_cells(runs, cells, arguments.archive)
    # Of all, so that no table is written anew without a run that it had.
    refuse_other_options(runs, cells)
    check_own(folder, FILES)
    runs.freeze()
    for cell in {cell.seed: cell for cell in chosen}.values():
        prepare_data(runs, cell)
    try:
        run_cells(runs, chosen, arguments.jobs, not arguments.noprogressbar)
    finally:
        if arguments.archive is not None:
            archive_cells(runs, cells, arguments.archive)
        command = shlex.join(["todm-sb", "compare", *argv])
        data = {"command": command, **Comparison(runs, cells, sizes).to_dict()}
        text = "# Comparison\n\n" + comparison_markdown(data)
        contents = (f"{json.dumps(data, indent=1)}\n".encode(), text.encode(), drawn(data))
        write_own(folder, dict(zip(FILES, contents, strict=True)))
    print(comparison_markdown(data))
    return OK


def show(runs: Runs, cells: list[Cell]) -> None:
    """Prints the cells with their state."""
    for cell in cells:
        print(f"{runs.state(cell).value:<14} {cell.id}")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of ``compare``, and those for ``train``."""
    parser = beside_a_recipe("compare", __doc__)
    parser.add_argument("--output_folder", type=path, help="default: results/compare-<YAML>")
    parser.add_argument(
        "--archive",
        type=path,
        help="folder for the figures of finished cells, in small files; cells whose figures are "
        "there are not run again",
    )
    parser.add_argument(
        "--cells",
        type=lambda text: text.split(","),
        default=["supernet", "individual-*"],
        help="patterns with commas between them; default: supernet,individual-*",
    )
    parser.add_argument(
        "--seeds", type=integers, default=[1], help="with commas between them; default: 1"
    )
    parser.add_argument("--sizes", type=int, default=5, help="default: 5")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cells at a time; default: 1")
    parser.add_argument("--adamw_lr", type=positive, default=0.001, help="default: 0.001")
    parser.add_argument("--dry-run", action="store_true", help="only list the cells, their state")
    parser.add_argument("--noprogressbar", action="store_true")
    arguments, others = parser.parse_known_args(argv)
    for seed in arguments.seeds:
        REQUIRED["seed"](seed, "--seeds")
    if arguments.output_folder is None:
        arguments.output_folder = Path("results") / f"compare-{arguments.hparams.stem}"
    return arguments, others


def integers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(part) for part in text.split(",")]
