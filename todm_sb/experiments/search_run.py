"""A search for the best subnets of a run, from its folder to the files of what was found."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.reading import reading_of
from todm_sb.dataio.text import words_of_ids
from todm_sb.experiments.deployed_dev_set import DeployedDevSet
from todm_sb.experiments.evaluation import EvaluationSet
from todm_sb.inference.recogniser import Recogniser
from todm_sb.nnet.sizes import LONG_ROW, SMALL
from todm_sb.search.costs import Costs
from todm_sb.search.dev_set import DevSet, speech
from todm_sb.search.device_latency import device_table
from todm_sb.search.latency import LatencyTable
from todm_sb.search.probes import PRECISIONS, network_id
from todm_sb.search.proposers.protocol import BEGINNING
from todm_sb.space import SubnetConfig
from todm_sb.training.runs import (
    dev_dataset,
    dev_utterances,
    load_run,
    run_tokenizer,
    search_folder,
    weights_id,
)
from todm_sb.training.searcher import decoding_of, max_symbols_of, searcher_of
from todm_sb.utils.devices import usable_device
from todm_sb.utils.errors import ConfigError

if TYPE_CHECKING:
    from todm_sb.dataio.pipeline import SpeechDataset
    from todm_sb.nnet.transducer import Transducer
    from todm_sb.search.pareto import SearchResult
    from todm_sb.search.study import SharedStudy
    from todm_sb.space import SearchSpace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchOptions:
    """What to search a run for, and how.

    Args:
        run_folder: ``output_folder`` of train.py.
        cost: one of :data:`todm_sb.search.budget.COSTS`.
        budgets: largest costs; five from the min subnet's cost to the max subnet's where there are
            none.
        algorithm: one of :data:`todm_sb.search.proposers.ALGORITHMS`.
        causal: search a dual-mode network's causal form.
        evaluations: of each method.
        seconds: of audio, that MACs and latency are of.
        storage: Optuna's; SQLite in the run's folder when None.
        study: name in the storage, and of a folder; that of the cost when None.
        population: of NSGA-II.
        seed: of all draws.
        device: where subnets are evaluated.
        baselines: random and evenly spaced subnets too.
        latency_table: of ``todm-sb latency`` on a device; latencies are measured here when None.
        precision: of the networks that error rates, and the table's times, are of.
        threads: of the table's times.
    """

    run_folder: Path
    cost: str = "params"
    budgets: Sequence[float] = ()
    algorithm: str = "nsga2"
    causal: bool = False
    evaluations: int = 200
    seconds: float = 10.0
    storage: str | None = None
    study: str | None = None
    population: int = 20
    seed: int = 0
    device: str = "cpu"
    baselines: bool = True
    latency_table: Path | None = None
    precision: str = PRECISIONS[0]
    threads: int = 1


# What of a study's task goes into its results.
RECORDED = ("checkpoint", "dev set", "precision", "decoding")
# From a run and its hparams to what makes recognisers of subnets in a precision.
Deploy = Callable[[Path, dict[str, Any]], Callable[[SubnetConfig], Recogniser]]


def search_run(options: SearchOptions, deploy: Deploy | None = None) -> tuple[SearchResult, Path]:
    """Searches, and writes what was found into the run's folder.

    Args:
        options: what to search for.
        deploy: how networks of another precision than float32 are made; None where none is asked
            for.

    Returns:
        What was found, and the folder of ``pareto.json``, ``pareto.png`` and ``pareto.html``.

    Raises:
        ConfigError: if the run, a budget, the study or its storage is not as it should be.
    """
    # It needs the extra `search`, and says so where that is missing.
    from todm_sb.search.search import SubnetSearch, check_budgets, check_limit

    cost, seconds = options.cost, options.seconds
    _check(options)
    # The folder's database can hold several studies, each of which has results of its own.
    place = (options.run_folder, cost, options.causal)
    results = search_folder(*place, options.study, options.precision)
    hparams = load_run(options.run_folder, options.causal)
    space, model = hparams["space"], hparams["model"]
    tokenizer = run_tokenizer(hparams)
    dataset = dev_dataset(hparams, tokenizer)
    n_features = hparams["features"].n_frames(round(seconds * hparams["sample_rate"]))

    given = _given_table(options, model, space)

    def measure() -> dict[str, Any]:
        if given is not None or cost != "latency":
            return {} if given is None else given.to_dict()
        return _measured_here(hparams, dataset, n_features).to_dict()

    if cost != "latency" or given is not None:  # else it is not known yet
        check_budgets(options.budgets, Costs(model, n_features, given)(space.min)[cost], cost)
    device = _device(options)
    task = _task(options, hparams, tokenizer, given)
    study = _study(options)
    table = study.agree(task, measure)
    costs = Costs(model, n_features, LatencyTable.from_dict(table) if table else None)
    budgets = list(options.budgets) or evenly_spaced_budgets(
        costs(space.min)[cost], costs(space.max)[cost]
    )
    check_limit(study, max(budgets), cost)
    if deploy is None:
        dev_set: DevSet | DeployedDevSet = _dev_set(device, hparams, dataset, tokenizer)
    else:
        dev_set = _deployed_dev_set(hparams, tokenizer, deploy(options.run_folder, hparams))
    drawn = (options.seed, options.algorithm)
    search = SubnetSearch(study, space, dev_set.error_rate, costs, cost, seconds, budgets, *drawn)
    result = search.run(options.evaluations, options.baselines)
    scored = {"left_out": dataset.left_out, **dev_set.scored}
    names = {key.replace(" ", "_"): task[key] for key in RECORDED}
    result = replace(result, **names, scored=scored)
    _write(result, results)
    return result, results


def _check(options: SearchOptions) -> None:
    """Refuses what a precision does not go with."""
    if options.precision == PRECISIONS[0]:
        return
    if options.cost == "latency" and options.latency_table is None:
        raise ConfigError(
            f"latencies that are measured here are of {PRECISIONS[0]}: for {options.precision} add "
            "--latency-table, of todm-sb latency"
        )
    if options.device != "cpu":
        raise ConfigError(
            f"networks in {options.precision} run on the CPU: leave --device {options.device} out"
        )


def _given_table(
    options: SearchOptions, model: Transducer, space: SearchSpace
) -> LatencyTable | None:
    """The latencies of another device."""
    if options.latency_table is None:
        return None
    network = network_id(model.deployed().config, space)
    which = (options.seconds, options.precision, options.threads)
    table, missed = device_table(options.latency_table, space, network, *which)
    logger.info(
        "%s: its sums are within %.1f %% of what was measured", options.latency_table, 100 * missed
    )
    return table


def _measured_here(
    hparams: dict[str, Any], dataset: SpeechDataset, n_features: int
) -> LatencyTable:
    """The latencies of this machine, of decoding as exports do."""
    model, space = hparams["model"], hparams["space"]
    sample = speech(dev_utterances(hparams, dataset, torch.device("cpu")), n_features)
    max_symbols = max_symbols_of(hparams, model)
    return LatencyTable.measure(copy.deepcopy(model).cpu(), space, sample, max_symbols=max_symbols)


def _digest(table: LatencyTable) -> str:
    """Tells tables apart."""
    return hashlib.sha256(json.dumps(table.to_dict()).encode()).hexdigest()[:16]


def _write(result: SearchResult, folder: Path) -> None:
    """Writes what was found, also as a picture and as a page."""
    from todm_sb.search.figures import draw_png
    from todm_sb.search.page import write_html

    folder.mkdir(parents=True, exist_ok=True)
    result.save(folder / "pareto.json")
    draw_png(result, folder / "pareto.png")
    write_html(result, folder / "pareto.html")


def _device(options: SearchOptions) -> torch.device:
    """Where subnets are evaluated."""
    # Of torchrun's processes on a machine each takes its own GPU.
    own = f":{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else ""
    return usable_device(options.device + (own if options.device == "cuda" else ""))


def _dev_set(
    device: torch.device, hparams: dict[str, Any], dataset: SpeechDataset, tokenizer: Any
) -> DevSet:
    """The utterances that subnets are evaluated on, and the supernet, on their device."""
    model = hparams["model"].to(device)
    return DevSet(
        model,
        dev_utterances(hparams, dataset, device),
        partial(words_of_ids, tokenizer),
        searcher_of(hparams, model).greedy(),
    )


def _deployed_dev_set(
    hparams: dict[str, Any],
    tokenizer: Any,
    recogniser_of: Callable[[SubnetConfig], Recogniser],
) -> DeployedDevSet:
    """The same utterances for networks that are made of each subnet."""
    utterances = EvaluationSet.read(Path(hparams["valid_csv"]), reading_of(hparams))
    return DeployedDevSet(utterances, tokenizer, recogniser_of, hparams["space"].min)


def _task(
    options: SearchOptions,
    hparams: dict[str, Any],
    tokenizer: Any,
    given: LatencyTable | None,
) -> dict[str, Any]:
    """What all processes of a study must agree on; sizes in 8 bits have been counted otherwise."""
    return {
        "search space": hparams["space"].to_dict(),
        "checkpoint": weights_id(hparams["model"]),
        "dev set": dev_set_id(hparams["valid_csv"], tokenizer, reading=reading_of(hparams)),
        "decoding": _decoding(hparams),
        "algorithm": options.algorithm,
        "cost": options.cost,
        "audio length": options.seconds,
        "population": options.population,
        "beginning": BEGINNING,
        "seed": options.seed,
        "precision": options.precision,
        "latency": "measured here" if given is None else _digest(given),
        **({"8 bits": [SMALL, LONG_ROW]} if options.cost == "bytes_int8" else {}),
    }


def _decoding(hparams: dict[str, Any]) -> list[Any]:
    """Name and arguments of what searches, as a message can tell them."""
    found = decoding_of(hparams, hparams["model"])
    return found if isinstance(found, list) else ["TransducerSearcher", {"max_symbols": found}]


def _study(options: SearchOptions) -> SharedStudy:
    """The study in its storage."""
    from todm_sb.search.study import SharedStudy

    place = (options.run_folder, options.cost, options.causal)
    folder = search_folder(*place, precision=options.precision)
    if not options.storage:
        folder.mkdir(parents=True, exist_ok=True)
    storage = options.storage or folder / "study.db"
    return SharedStudy(storage, options.study or folder.name, options.population)


def evenly_spaced_budgets(smallest: float, largest: float, n: int = 5) -> list[float]:
    """``n`` budgets from the min subnet's cost to the max subnet's."""
    return [*(smallest + (largest - smallest) * i / (n - 1) for i in range(n - 1)), largest]
