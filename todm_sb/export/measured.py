"""What tests and searches of a run found of its subnets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.budget import COSTS
from todm_sb.search.pareto import SearchResult
from todm_sb.search.probes import PRECISIONS
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.training.error_rates import SCORED_KEYS
from todm_sb.training.results import read_results
from todm_sb.training.runs import search_folder, weights_id

logger = logging.getLogger(__name__)

PARETO = "pareto.json"
Rates = dict[SubnetConfig, dict[str, float]]
Scored = dict[SubnetConfig, dict[str, Any] | None]


@dataclass(frozen=True)
class Measured:
    """Subnets that are worth recording.

    Args:
        subnets: with error rates of one data set, so that these are comparable.
        rates: error rates by data set, the one of the subnets first.
        scored: what these are of; see :class:`todm_sb.bundle.manifest.BundledSubnet`.
    """

    subnets: list[BundledSubnet]
    rates: dict[str, Rates]
    scored: dict[str, Scored]


def measured_subnets(
    run: Path,
    model: Transducer,
    space: SearchSpace,
    named: dict[str, dict],
    weights: str,
    decoding: dict[str, Any],
    causal: bool = False,
    dev_set: str = "dev",
) -> Measured:
    """The subnets worth recording: max, min, the named ones, and what a search found best.

    Their error rates are of the dev set if these weights were searched, by whatever cost and study,
    else of the first test set that they were tested on as exports decode. Those of a dual-mode
    network's causal mode are named so, e.g. ``WER-causal``, and those in 8 bits, ``WER-int8``.

    Args:
        run: folder of the run.
        model: what is exported.
        space: of the run.
        named: the run's own subnets.
        weights: tells the run's weights apart; with ``causal`` the model is a part of them.
        decoding: of what is exported; see :func:`todm_sb.training.searcher.told_of`.
        causal: the model is the causal form of a dual-mode network.
        dev_set: what the dev set is called.
    """
    configs = {"max": space.max, "min": space.min}
    configs |= {name: SubnetConfig.from_dict(data) for name, data in named.items() if data}
    found: Rates = {}
    costs: dict[SubnetConfig, dict[str, float]] = {}
    of_search: Scored = {}
    for search in (searches := _searches(run, weights_id(model), causal)):
        left_out = _incomparable(search, searches[0], costs)
        for s in search.subnets:
            own = {key: value for key, value in s.costs.items() if key not in left_out}
            costs[s.config] = {**costs.get(s.config, {}), **own}
            found[s.config] = {**found.get(s.config, {}), _rate_of(search): s.wer}
            of_search[s.config] = search.scored
        taken = set(configs.values())
        configs |= {s.config.id: s.config for s in search.front() if s.config not in taken}
    tests = _results(run, weights, decoding)
    modes, searched = model.encoder.modes, {dev_set: (found, of_search)} if found else {}
    known = {k: (_rates_of_test(x, modes), _scored_of_test(x, modes)) for k, x in tests.items()}
    known = {**searched, **known, **searched}  # a test on the dev set knows fewer subnets
    rates, scored = next(iter(known.values()), ({}, {}))
    subnets = [
        BundledSubnet(
            name,
            space.check(config),
            {**costs.get(config, {}), "params": count_parameters(model, config)},
            rates.get(config, {}),
            scored.get(config),
        )
        for name, config in configs.items()
    ]
    all_rates = {name: x for name, (x, _) in known.items()}
    return Measured(subnets, all_rates, {name: x for name, (_, x) in known.items()})


def _incomparable(
    search: SearchResult, first: SearchResult, costs: Mapping[SubnetConfig, Mapping[str, float]]
) -> set[str]:
    """The costs of a search that are of something else than those that are known, such as latency
    on another device: a subnet of both tells, and every search has max and min. Latencies of
    networks in 8 bits are of no network in float32, multiply-accumulates of one audio length."""
    known = ((s.costs, costs.get(s.config, {})) for s in search.subnets)
    other = {k for own, theirs in known for k, x in theirs.items() if own.get(k, x) != x}
    if search.precision != PRECISIONS[0]:
        other.add("latency")
    if search.seconds != first.seconds:
        other.add("macs")
    return other


def _rate_of(search: SearchResult) -> str:
    """The name of a search's error rates."""
    return "WER" if search.precision == PRECISIONS[0] else f"WER-{search.precision}"


def _rates_of_test(results: list[dict[str, Any]], modes: Sequence[bool]) -> Rates:
    """Error rates of each subnet, in the modes there are."""
    rates: Rates = {}
    for result in results:
        if (mode := bool(result.get("causal", modes[0]))) in modes:
            config = SubnetConfig.pick(result)
            suffix = "-causal" if mode != modes[0] else ""
            own = {f"{key}{suffix}": result[key] for key in ("WER", "CER")}
            rates[config] = {**rates.get(config, {}), **own}
    return rates


def _scored_of_test(results: list[dict[str, Any]], modes: Sequence[bool]) -> Scored:
    """What the error rates of each subnet are of."""
    return {
        SubnetConfig.pick(result): {key: result[key] for key in SCORED_KEYS}
        for result in results
        if bool(result.get("causal", modes[0])) in modes
    }


def _results(run: Path, weights: str, decoding: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What tests of these weights by this search found, by the name of the test set. What older
    versions found counts, too: they did not record the search."""
    found = read_results(run)
    for name, results in [*found.items()]:
        if {result.get("weights") for result in results} != {weights}:
            logger.warning(
                "%s/results_%s.json does not say that it is of the run's best weights: it is left "
                "out; to test these, train.py --test_only",
                run,
                name,
            )
            del found[name]
        elif (other := results[0].get("decoding", decoding)) != decoding:
            logger.warning(
                "%s/results_%s.json is of %s, not of %s, which is exported: it is left out; to "
                "test that, train.py --test_only %s",
                run,
                name,
                _text_of(other),
                _text_of(decoding),
                _options_of(decoding, other),
            )
            del found[name]
    return found


def _text_of(decoding: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in decoding.items())


def _options_of(decoding: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The options of train.py that make of another search this one."""
    wanted = {key: value for key, value in decoding.items() if other.get(key) != value}
    if "searcher" in wanted:
        searcher = f"!name:{TransducerSearcher.__module__}.{decoding['searcher']}"
        return f"--searcher='{searcher} {{max_symbols: {decoding['max_symbols']}}}'"
    return " ".join(f"--{key}={value}" for key, value in wanted.items())


def _other(search: SearchResult, leading: SearchResult) -> str | None:
    """By what the error rates of two searches differ; earlier ones did not tell the decoding."""
    if search.dev_set != leading.dev_set:
        return "dev set"
    decodings = search.decoding, leading.decoding
    return "decoding" if None not in decodings and decodings[0] != decodings[1] else None


def _searches(run: Path, checkpoint: str, causal: bool) -> list[SearchResult]:
    """What was found of these weights, on the dev set of the newest search and decoded as there: by
    each cost, the nameless study before those that have a name."""
    folders = [search_folder(run, c, causal, precision=p) for p in PRECISIONS for c in COSTS]
    paths = [p for f in folders for p in (f / PARETO, *sorted(f.glob(f"*/{PARETO}")))]
    found = {path: SearchResult.load(path) for path in paths if path.is_file()}
    ours = {path: x for path, x in found.items() if x.checkpoint == checkpoint}
    newest = max(ours, key=lambda path: path.stat().st_mtime, default=None)
    leading = None if newest is None else ours[newest]
    for path, result in found.items():
        if path not in ours:
            logger.warning("%s is of other weights than the run's best: it is left out", path)
        elif leading is not None and (other := _other(result, leading)):
            logger.warning("%s is of another %s than %s: it is left out", path, other, newest)
            del ours[path]
    return list(ours.values())
