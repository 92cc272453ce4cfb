"""``todm-sb search``: the best subnets of a trained supernet, by word error rate on the dev set
against cost.

todm-sb search results/mini/1234
todm-sb search results/mini/1234 --cost latency --budget 20ms --budget 40ms
todm-sb search results/streaming/1234 --causal
todm-sb search results/mini/1234 --storage=postgresql://user@host/database
torchrun --nproc_per_node=8 --module todm_sb.cli search results/supernet/1234 --device=cuda

The same command goes on where it was broken off. Started several times, by hand or by torchrun, on
one machine or (with a storage that all of them reach) on many, it shares the work.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
from dataclasses import replace
from functools import partial

import torch

from todm_sb.cli.main import OK
from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.text import words_of_ids
from todm_sb.search.budget import COSTS, format_cost, parse_budget
from todm_sb.search.costs import Costs
from todm_sb.search.dev_set import DevSet, speech
from todm_sb.search.latency import LatencyTable
from todm_sb.search.proposers import ALGORITHMS, proposer_class
from todm_sb.training.runs import (
    dev_dataset,
    dev_utterances,
    load_run,
    run_tokenizer,
    search_folder,
    weights_id,
)
from todm_sb.training.searcher import searcher_of
from todm_sb.utils.arguments import at_least, path, positive
from todm_sb.utils.devices import usable_device
from todm_sb.utils.tables import scored_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``search``."""
    parser.add_argument("run_folder", type=path, help="output_folder of train.py")
    parser.add_argument("--cost", choices=COSTS, default="params", help="default: params")
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
    """Searches, and writes what was found into the run's folder.

    Returns:
        The exit code.

    Raises:
        ConfigError: if the run, a budget, the study or its storage is not as it should be.
    """
    # They need the extra `search`, and say so where it is missing.
    from todm_sb.search.figures import draw_png, write_html
    from todm_sb.search.search import SubnetSearch, check_budgets
    from todm_sb.search.study import SharedStudy

    logging.getLogger("optuna").setLevel(logging.WARNING)
    proposer_class(arguments.algorithm)
    cost, seconds = arguments.cost, arguments.seconds
    budgets = [parse_budget(text, cost) for text in arguments.budget]
    folder = search_folder(arguments.run_folder, cost, arguments.causal)
    # The folder's database can hold several studies, each of which has results of its own.
    results = search_folder(arguments.run_folder, cost, arguments.causal, arguments.study)
    hparams = load_run(arguments.run_folder, arguments.causal)
    space, model, features = hparams["space"], hparams["model"], hparams["features"]
    # Of torchrun's processes on a machine each takes its own GPU.
    own = f":{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else ""
    device = usable_device(arguments.device + (own if arguments.device == "cuda" else ""))
    tokenizer = run_tokenizer(hparams)
    dataset = dev_dataset(hparams, tokenizer)
    n_features = int(seconds * hparams["sample_rate"]) // features.hop + 1

    def measure() -> dict:
        if cost != "latency":
            return {}
        sample = speech(dev_utterances(hparams, dataset, torch.device("cpu")), n_features)
        on_cpu = copy.deepcopy(model).cpu()
        return LatencyTable.measure(on_cpu, space, sample).to_dict()

    searcher = searcher_of(hparams, model.to(device)).greedy()
    dev_set = DevSet(
        model,
        dev_utterances(hparams, dataset, device),
        partial(words_of_ids, tokenizer),
        searcher,
    )
    if cost != "latency":  # which is not known yet
        check_budgets(budgets, Costs(model, n_features)(space.min)[cost], cost)
    if not arguments.storage:
        folder.mkdir(parents=True, exist_ok=True)
    storage = arguments.storage or folder / "study.db"
    study = SharedStudy(storage, arguments.study or folder.name, arguments.population)
    task = {
        "search space": space.to_dict(),
        "checkpoint": weights_id(model),
        "dev set": dev_set_id(hparams["valid_csv"], tokenizer),
        "searcher": type(searcher).__qualname__,
        "algorithm": arguments.algorithm,
        "cost": cost,
        "audio length": seconds,
        "population": arguments.population,
        "seed": arguments.seed,
    }
    table = study.agree(task, measure)
    costs = Costs(model, n_features, LatencyTable.from_dict(table) if table else None)
    search = SubnetSearch(
        study,
        space,
        dev_set.error_rate,
        costs,
        cost,
        seconds,
        budgets or evenly_spaced_budgets(costs(space.min)[cost], costs(space.max)[cost]),
        arguments.seed,
        arguments.algorithm,
    )
    result = search.run(arguments.evaluations, not arguments.no_baselines)
    names = {"checkpoint": task["checkpoint"], "dev_set": task["dev set"]}
    scored = {**dev_set.scored, "left_out": dataset.left_out}
    result = replace(result, **names, scored=scored)
    results.mkdir(parents=True, exist_ok=True)
    result.save(results / "pareto.json")
    draw_png(result, results / "pareto.png")
    write_html(result, results / "pareto.html")
    if os.environ.get("RANK", "0") != "0":
        return OK
    for budget in result.budgets:
        best = result.best(budget)
        print(
            f"{format_cost(budget, cost):>8}: WER {best.wer:.2f} %, "
            f"{format_cost(best.costs[cost], cost)}, {best.config.to_json()}"
        )
    print(scored_text(scored))
    print(f"{results}: pareto.json, pareto.png, pareto.html")
    return OK


def evenly_spaced_budgets(smallest: float, largest: float, n: int = 5) -> list[float]:
    """``n`` budgets from the min subnet's cost to the max subnet's."""
    return [*(smallest + (largest - smallest) * i / (n - 1) for i in range(n - 1)), largest]
