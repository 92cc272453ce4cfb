#!/usr/bin/env python3
"""What a search found on the dev set, beside evenly wide subnets, on a test set.

    todm-sb search RUN --budget 2M --budget 2.6M --budget 3.4M
    cd benchmarks/training
    python search_on_test.py RUN

For each budget the subnet of the search with the lowest dev WER is compared with two that are as
wide in all layers, and the layers evenly spaced: the largest that the budget allows, which nobody
has to search for, and of those that the search evaluated the one with the lowest dev WER that it
allows. All are decoded, once, on the
test set of the run; differences have the 95 % interval of a paired bootstrap over speakers. With
``--manifest`` it is another one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from todm_sb.dataio.faults import EVALUATE
from todm_sb.dataio.pipeline import SpeechDataset, make_loader_kwargs
from todm_sb.dataio.split import manifests_of_tests, read_split
from todm_sb.experiments.compare.results import Tested, compare_error_rates
from todm_sb.experiments.compare.tables import difference_text
from todm_sb.search.budget import COSTS, format_cost
from todm_sb.search.costs import Costs
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.space import SubnetConfig
from todm_sb.training.evaluation import Evaluation
from todm_sb.training.runs import load_run, run_tokenizer, search_folder
from todm_sb.training.searcher import searcher_of
from todm_sb.training.shared_part import SharedPart
from todm_sb.utils.errors import ConfigError, one_line_errors
from todm_sb.utils.tables import table_of

# What a budget gets: of the search, and of evenly wide subnets.
FOUND, LARGEST, EVEN = "found", "even, largest", "even, best on dev"


def subnets_of(
    result: SearchResult, budget: float, cost_of: Callable[[SubnetConfig], float]
) -> dict[str, Evaluated]:
    """What a budget gets, by :data:`FOUND`, :data:`LARGEST` and :data:`EVEN`; the WER of a largest
    one that the search did not evaluate is not a number.

    Args:
        result: of the search.
        budget: in the unit of its cost.
        cost_of: that cost, of any subnet.

    Raises:
        ConfigError: if the search evaluated no evenly wide subnets within it.
    """
    known = {x.config: x for x in result.subnets}
    costs = {x: cost_of(x) for x in result.space.uniform()}
    within = [config for config in costs if costs[config] <= budget]
    even = [known[config] for config in within if config in known]
    if not even:
        raise ConfigError(
            f"no evenly wide subnet within {format_cost(budget, result.cost)} was evaluated: "
            "search without --no-baselines, or with a larger --budget"
        )
    largest = max(within, key=costs.__getitem__)
    unknown = Evaluated(largest, math.nan, {result.cost: costs[largest]})
    return {
        FOUND: result.best(budget),
        LARGEST: known.get(largest, unknown),
        EVEN: result.front(even)[-1],
    }


@torch.no_grad()
def decode(
    hparams: dict[str, Any], dataset: SpeechDataset, tokenizer: Any, subnets: list[SubnetConfig]
) -> dict[SubnetConfig, Tested]:
    """Decodes a test set with each subnet, as the run's own test does."""
    model = hparams["model"]
    measured = {subnet.id: (subnet, model.encoder.modes[0]) for subnet in subnets}
    evaluation = Evaluation(model, measured, searcher_of(hparams, model), tokenizer)
    evaluation.errors.append_undecodable(dataset.undecodable)
    shared_part = SharedPart(hparams["features"], model, hparams["epoch_counter"])
    options = make_loader_kwargs(dataset, hparams["max_batch_seconds"], seed=0, shuffle=False)
    for batch in DataLoader(dataset, **options):
        evaluation.errors.append_undecodable(batch.broken_words)
        if batch.id:
            evaluation.add(*shared_part(batch, model.encoder.modes[0]), batch.id, batch.words)
    found = evaluation.errors.by_utterance()
    keys = found["utterances"]
    words = dict(zip(keys, found["words"], strict=True))
    speakers = {key: dataset.speakers.get(key) or key for key in keys}
    return {
        subnet: Tested(words, dict(zip(keys, found["errors"][subnet.id], strict=True)), speakers)
        for subnet in subnets
    }


def rows_of(
    result: SearchResult,
    budget: float,
    subnets: dict[str, Evaluated],
    tested: dict[SubnetConfig, Tested],
) -> list[dict[str, str]]:
    """The lines of a budget."""
    found, rows = tested[subnets[FOUND].config], []
    for name, subnet in subnets.items():
        compared = compare_error_rates({0: [(found, tested[subnet.config])]})
        difference = difference_text(compared["relative difference"])
        rows.append(
            {
                "budget": format_cost(budget, result.cost),
                "subnet": name,
                "layers": " ".join(map(str, subnet.config.layers)),
                "label": subnet.config.label,
                result.cost: format_cost(subnet.costs[result.cost], result.cost),
                "dev WER %": "-" if math.isnan(subnet.wer) else f"{subnet.wer:.2f}",
                "test WER %": f"{compared['WER of the other']:.2f}",
                f"found to it, %, over {compared['units']} {compared['unit']}": "-"
                if name == FOUND
                else difference,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="output_folder of train.py, searched")
    # Latency is known of what the search timed alone.
    counted = [cost for cost in COSTS if cost != "latency"]
    parser.add_argument("--cost", default="params", choices=counted, help="of the search; params")
    parser.add_argument("--study", help="of the search")
    parser.add_argument("--manifest", help="of a test set; default: the run's own")
    arguments = parser.parse_args()
    with one_line_errors():
        folder = search_folder(arguments.run, arguments.cost, study=arguments.study)
        result = SearchResult.load(folder / "pareto.json")
        hparams = load_run(arguments.run)
        if result.checkpoint != hparams["weights"]:
            raise ConfigError(f"{folder} is of other weights: run todm-sb search again")
        manifest = arguments.manifest or next(iter(manifests_of_tests(hparams).values()), None)
        if manifest is None:
            raise ConfigError(f"{arguments.run} has no test set: give --manifest")
        n_features = hparams["features"].n_frames(round(result.seconds * hparams["sample_rate"]))
        costs = Costs(hparams["model"], n_features)

        def cost_of(config: SubnetConfig) -> float:
            return costs(config)[result.cost]

        subnets = {budget: subnets_of(result, budget, cost_of) for budget in result.budgets}
        configs = dict.fromkeys(x.config for of in subnets.values() for x in of.values())
        tokenizer = run_tokenizer(hparams)
        dataset = read_split(hparams, tokenizer, manifest, EVALUATE)
        tested = decode(hparams, dataset, tokenizer, list(configs))
        rows = [row for b, of in subnets.items() for row in rows_of(result, b, of, tested)]
        print(f"{Path(manifest).stem}\n\n{table_of(rows)}")


if __name__ == "__main__":
    main()
