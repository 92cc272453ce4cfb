"""``todm-sb search``: the best subnets of a trained supernet, by word error rate on the dev set
against cost.

todm-sb search results/mini/1234
todm-sb search results/mini/1234 --cost latency --budget 20ms --budget 40ms
todm-sb search results/mini/1234 --latency-table table.json --precision int8   # todm-sb latency
todm-sb search results/mini/1234 --cost bytes_int8 --precision int8
todm-sb search results/streaming/1234 --causal
todm-sb search results/mini/1234 --storage=postgresql://user@host/database
torchrun --nproc_per_node=8 --module todm_sb.cli search results/supernet/1234 --device=cuda

The same command goes on where it was broken off. Started several times, by hand or by torchrun, on
one machine or (with a storage that all of them reach) on many, it shares the work.
"""

from __future__ import annotations

import argparse
import os

from todm_sb.cli.main import OK
from todm_sb.experiments.search_run import Deploy, SearchOptions, search_run
from todm_sb.search.budget import COSTS, format_cost, parse_budget
from todm_sb.search.probes import PRECISIONS
from todm_sb.search.proposers import ALGORITHMS, proposer_class
from todm_sb.utils.arguments import at_least, check_given_with, path, positive
from todm_sb.utils.extras import named_packages
from todm_sb.utils.tables import scored_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``search``."""
    parser.add_argument("run_folder", type=path, help="output_folder of train.py")
    parser.add_argument(
        "--cost", choices=COSTS, help="default: params; with --latency-table, latency"
    )
    parser.add_argument(
        "--latency-table", type=path, help="of todm-sb latency on a device; default: this machine's"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of the networks: their error rates, by onnxruntime for int8, and the times of the "
        "table; float32",
    )
    parser.add_argument("--threads", type=at_least(1), help="of the table; 1")
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        help="largest cost, e.g. 5M, or 80ms of latency; may be given several times",
    )
    parser.add_argument("--causal", action="store_true", help="a dual-mode network's causal form")
    parser.add_argument(
        "--algorithm",
        default="nsga2",
        help=f"{', '.join(ALGORITHMS)}, or module.Class of your own; default: nsga2",
    )
    parser.add_argument("--evaluations", type=at_least(2), default=200, help="default: 200")
    parser.add_argument(
        "--seconds", type=positive, default=10.0, help="of audio, for MACs, latency"
    )
    parser.add_argument("--storage", help="Optuna storage; default: SQLite in the run's folder")
    parser.add_argument(
        "--study", help="name in the storage, and of a folder; default: that of the cost"
    )
    parser.add_argument(
        "--population", type=at_least(2), default=20, help="of a generation; default: 20"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-baselines", action="store_true", help="the algorithm alone")


def run(arguments: argparse.Namespace) -> int:
    """Searches, and prints what was found.

    Returns:
        The exit code.

    Raises:
        ConfigError: if the run, a budget, the study or its storage is not as it should be, or
            options do not fit together.
    """
    check_given_with(arguments, "--latency-table FILE", "--threads")
    proposer_class(arguments.algorithm)
    cost = arguments.cost or ("latency" if arguments.latency_table else "params")
    options = SearchOptions(
        run_folder=arguments.run_folder,
        cost=cost,
        budgets=[parse_budget(text, cost) for text in arguments.budget],
        algorithm=arguments.algorithm,
        causal=arguments.causal,
        evaluations=arguments.evaluations,
        seconds=arguments.seconds,
        storage=arguments.storage,
        study=arguments.study,
        population=arguments.population,
        seed=arguments.seed,
        device=arguments.device,
        baselines=not arguments.no_baselines,
        latency_table=arguments.latency_table,
        precision=arguments.precision,
        threads=arguments.threads or 1,
    )
    deploy: Deploy | None = None
    if options.precision != PRECISIONS[0]:
        with named_packages(f"--precision {options.precision}"):
            from todm_sb.export.deployed import in_8_bits

        deploy = in_8_bits
    result, folder = search_run(options, deploy)
    if os.environ.get("RANK", "0") != "0":
        return OK
    for budget in result.budgets:
        best = result.best(budget)
        print(
            f"{format_cost(budget, result.cost):>8}: WER {best.wer:.2f} %, "
            f"{format_cost(best.costs[result.cost], result.cost)}, {best.config.to_json()}"
        )
    print(f"{scored_text(result.scored)} Networks in {result.precision}.")
    print(f"{folder}: pareto.json, pareto.png, pareto.html")
    return OK
