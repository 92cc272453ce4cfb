"""``todm-sb compare``: a supernet's subnets against networks trained by themselves, and the
supernet against those that lack one of its techniques.

todm-sb compare hparams/mini.yaml --seeds=1,2,3
todm-sb compare hparams/mini.yaml --seeds=1,2,3 --cells='*' --jobs=2
todm-sb compare hparams/mini.yaml --seeds=1,2,3 --cells='*' --dry-run --hours=1.4 --step=0.3
todm-sb compare hparams/mini_librispeech_table.yaml --data_folder='/data/{fold}' \\
    --folds=fold-1,fold-2,fold-3 --sizes=named --tune=4x384 --cells='supernet,individual-*,tuned-*'

For each seed it trains the supernet and, at five sizes, individual networks with the same recipe
and the same number of steps; `ablation-*` are supernets that lack a technique each. Each run is a
cell with a folder of its own: finished cells are kept, unfinished ones go on from their checkpoint,
so that the same command goes on where it was stopped; with ``--archive``, cells that were finished
on another machine count as well. Any key of the YAML can be overridden, for all cells, as
``--key=value``. The tables are of all cells that are finished.

With ``--folds``, every cell is run for each of these parts of the data, whose name takes the place
of ``{fold}`` in the overrides. What is chosen (of several ``--adamw_lr``, or the rate and dropout
of the network that ``--tune`` names) is chosen once, by the dev set of the first fold and seed
given or, where trials are there already, of theirs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
from itertools import product
from pathlib import Path
from typing import Any

from todm_sb.cli.main import OK, imports
from todm_sb.dataio.split import manifests_of_tests
from todm_sb.experiments.compare.cells import TODM_SB, Runs, State
from todm_sb.experiments.compare.estimate import estimate_text, steps_of_max
from todm_sb.experiments.compare.experiment import Experiment
from todm_sb.experiments.compare.figure import drawn
from todm_sb.experiments.compare.plan import TRIED_DROPOUTS, CellPlan
from todm_sb.experiments.compare.recipe import load_for_planning
from todm_sb.experiments.compare.sizes import Size, evenly_spaced_sizes, named_sizes
from todm_sb.experiments.compare.tables import comparison_markdown
from todm_sb.space import SubnetConfig
from todm_sb.supernet import count_parameters
from todm_sb.training.arguments import parse_arguments, run_option_arguments
from todm_sb.training.settings import REQUIRED
from todm_sb.utils.arguments import (
    at_least,
    beside_a_recipe,
    check_given_with,
    path,
    positive,
    several,
)
from todm_sb.utils.errors import ConfigError
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
    sizes = sizes_of(hparams, arguments.sizes)
    splits = list(manifests_of_tests(hparams))
    if not splits:
        raise ConfigError(
            f"{recipe.file} has no test set to compare on: give --test_splits or --test_csvs"
        )
    program = (*TODM_SB, *imports, "train")
    runs = Runs(arguments.output_folder, recipe, run_option_arguments(options), splits, program)
    runs.check_folds(arguments.folds)
    plan = plan_of(hparams, sizes, arguments)
    wanted = list(product(arguments.folds, arguments.seeds))
    experiment = Experiment(runs, plan, wanted, arguments.cells, arguments.archive)
    if arguments.dry_run:
        given = {name: getattr(options, name) for name in options.overridden_args}
        show(experiment, hparams | given, arguments)
        return OK
    experiment.restore()
    experiment.check()
    check_own(runs.root, FILES)
    try:
        experiment.run(arguments.jobs, not arguments.noprogressbar)
    finally:
        try:
            data = _write_tables(experiment, argv)
        finally:
            experiment.keep()
    print(comparison_markdown(data))
    return OK


def _write_tables(experiment: Experiment, argv: list[str]) -> dict[str, Any]:
    """The tables of what is finished, which are returned."""
    command = shlex.join(["todm-sb", *imports, "compare", *argv])
    data = {"command": command, **experiment.tables()}
    text = "# Comparison\n\n" + comparison_markdown(data)
    contents = (f"{json.dumps(data, indent=1)}\n".encode(), text.encode(), drawn(data))
    write_own(experiment.runs.root, dict(zip(FILES, contents, strict=True)))
    return data


def sizes_of(hparams: dict[str, Any], wanted: int | None) -> list[Size]:
    """The sizes that are compared; None for those that the recipe names."""
    model, space = hparams["model"], hparams["space"]

    def n_parameters(subnet: SubnetConfig) -> int:
        return count_parameters(model, subnet)

    if wanted is None:
        return named_sizes(space, hparams["named_subnets"], n_parameters)
    return evenly_spaced_sizes(space, n_parameters, wanted)


def plan_of(hparams: dict[str, Any], sizes: list[Size], arguments: argparse.Namespace) -> CellPlan:
    """The cells that the arguments want.

    Raises:
        ConfigError: if there is nothing to tune, or no network of that size.
    """
    tuned = None
    config = hparams["model"].config
    dropouts = [config[part].get("dropout", 0.0) for part in ("encoder", "predictor")]
    if arguments.tune is not None:
        tuned = next((size for size in sizes if size.name == arguments.tune), None)
        if tuned is None:
            names = ", ".join(size.name for size in sizes)
            raise ConfigError(f"--tune={arguments.tune} is none of the sizes {names}")
        if not min(dropouts):
            raise ConfigError("--tune tries multiples of dropout, which is 0: set it in the model")
        if max(dropouts) * max(TRIED_DROPOUTS) >= 1:
            raise ConfigError(
                f"--tune tries {max(TRIED_DROPOUTS):g} times the dropout, which is "
                f"{max(dropouts):g}: nothing would be left; set it lower in the model"
            )
    return CellPlan(
        sizes,
        hparams["named_subnets"] or {},
        hparams["n_random"],
        arguments.adamw_lr,
        hparams["lr"],
        (dropouts[0], dropouts[1]),
        tuned,
    )


def show(experiment: Experiment, hparams: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Prints the cells with their state and, if a step's time is given, what they will take."""
    cells = {cell.id: cell for cell in [*experiment.chosen, *experiment.decided()]}
    states = {name: experiment.runs.state(cell).value for name, cell in cells.items()}
    states |= dict.fromkeys(experiment.archived(), State.FINISHED.value)
    for cell in experiment.awaited():
        states.setdefault(cell.id, "waits")
        cells.setdefault(cell.id, cell)
    if arguments.step is None:
        print("\n".join(f"{state:<14} {name}" for name, state in states.items()))
        return
    steps = steps_of_max(hparams, experiment.plan.sizes, arguments.hours)
    for name, state in states.items():
        minutes = steps(cells[name]) * arguments.step / 60
        print(f"{state:<14} {minutes:6.0f} min {name}")
    left = [cells[name] for name, state in states.items() if state != State.FINISHED.value]
    print(estimate_text(left, steps, arguments.step))


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of ``compare``, and those for ``train``.

    Raises:
        ConfigError: if they do not fit together.
    """
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
        type=several(str),
        default=["supernet", "individual-*"],
        help="patterns with commas between them; default: supernet,individual-*",
    )
    parser.add_argument(
        "--seeds", type=several(int), default=[1], help="with commas between them; default: 1"
    )
    parser.add_argument(
        "--folds",
        type=several(str),
        default=[""],
        help="names of parts of the data, with commas between them, for {fold} in the overrides",
    )
    parser.add_argument(
        "--sizes",
        type=number_or_named,
        default=5,
        help="from min to max, or named, for min, max and the recipe's named_subnets; default: 5",
    )
    parser.add_argument(
        "--tune", metavar="SIZE", help="whose individual network gets the best of eight settings"
    )
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cells at a time; default: 1")
    parser.add_argument(
        "--adamw_lr",
        type=several(positive),
        default=[0.001],
        help="one, or some to choose from on dev; default: 0.001",
    )
    parser.add_argument("--dry-run", action="store_true", help="only list the cells, their state")
    parser.add_argument("--step", type=positive, help="processor seconds of a step of max alone")
    parser.add_argument("--hours", type=positive, help="of audio to train on")
    parser.add_argument("--noprogressbar", action="store_true")
    arguments, others = parser.parse_known_args(argv)
    check_given_with(arguments, "--dry-run", "--step")
    check_given_with(arguments, "--step SECONDS", "--hours")
    check_given_with(arguments, "--hours HOURS", "--step")
    for seed in arguments.seeds:
        REQUIRED["seed"](seed, "--seeds")
    if arguments.output_folder is None:
        arguments.output_folder = Path("results") / f"compare-{arguments.hparams.stem}"
    return arguments, others


def number_or_named(text: str) -> int | None:
    """A number of sizes; None for those that the recipe names."""
    return None if text == "named" else int(text)
