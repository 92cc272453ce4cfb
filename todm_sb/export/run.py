"""From a training run to a folder that is deployed."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from todm_sb.bundle.bundle import write_bundle
from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.export.speechbrain import export_folder
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.budget import COSTS, parse_budget
from todm_sb.search.pareto import SearchResult
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters, extract_subnet
from todm_sb.training.error_rates import SCORED_KEYS
from todm_sb.training.identity import FEATURE_KEYS
from todm_sb.training.runs import (
    load_run,
    longest_trained,
    search_folder,
    trained_tokenizer,
    weights_id,
)
from todm_sb.training.searcher import searcher_of
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.ownership import check_place, new_export

logger = logging.getLogger(__name__)

# What a causal network must have been trained with to stream.
STREAMING = {"norm_type": "global", "fbank_kind": "kaldi", "snip_edges": True}

SUPERNET = "supernet"
PARETO = "pareto.json"
FORMATS = ("bundle", "speechbrain", "onnx", "onnx-int8", "web")


def export_run(
    run: Path,
    target: Path,
    subnet: str = SUPERNET,
    budget: str | None = None,
    cost: str = "params",
    form: str = "bundle",
    causal: bool = False,
    study: str | None = None,
    for_training: bool = False,
) -> int:
    """Writes the best weights of a run, and returns how many parameters are exported.

    Args:
        run: ``output_folder`` of train.py.
        target: folder to write; an earlier export there is replaced.
        subnet: name or JSON of a subnet to cut out, or ``supernet`` for all of them.
        budget: instead, the best subnet that todm-sb search found for it, e.g. ``5M``.
        cost: what the budget is of.
        form: one of :data:`FORMATS`; a bundle ``for_training`` keeps CTC head and simple joiner.
        causal: of a dual-mode network, what streaming needs and no more.
        study: name of the search that found it; None for the nameless one.

    Raises:
        ConfigError: if the run, the search, the subnet, the tokenizer or a causal form is not
            there, the search was of other weights, or the target is no place for an export.
    """
    check_place(target, run)
    hparams = _load_deployable(run, causal)
    model, space, named = (hparams[key] for key in ("model", "space", "named_subnets"))
    subnets = measured_subnets(run, model, space, named or {}, hparams["weights"], causal)
    config = None
    if budget is not None:
        found = search_folder(run, cost, causal, study)
        config = space.check(_found_best(found / PARETO, model, parse_budget(budget, cost)))
    elif subnet != SUPERNET:
        config = space.named(subnet, {s.name: s.config for s in subnets})
    if config is not None:
        subnets = [_record_of(config, subnets, model)]
    parts = {
        "folder": target,
        "model": model if config is None else extract_subnet(model, config),
        "normalize": hparams["normalize"],
        "tokenizer_path": trained_tokenizer(run, hparams),
        "fbank": {key: hparams[key] for key in FEATURE_KEYS if key in hparams},
        "max_symbols": hparams["max_symbols"],
        "space": space if config is None else None,
    }
    if form == "web":
        _write_web({**parts, "model": model}, subnets)
    elif form == "bundle":
        extra = {"for_training": for_training, "longest_seconds": hparams["longest"]}
        write_bundle(**parts, subnets=subnets, **extra)
    else:
        _write_network(form, parts, hparams)
    return count_parameters(model, config or space.max)


def _write_network(form: str, parts: dict[str, Any], hparams: dict[str, Any]) -> None:
    """Writes one network in a form that knows no subnets."""
    if form == "speechbrain":
        export_folder(**parts, hop=hparams["features"].hop, longest_seconds=hparams["longest"])
    else:
        _write_onnx({**parts, "longest_seconds": hparams["longest"]}, form == "onnx-int8")


def _load_deployable(run: Path, causal: bool) -> dict[str, Any]:
    """As :func:`load_run`, and ``longest``, the longest utterance of training in seconds; refuses a
    run that decodes with what no exported network has."""
    hparams = load_run(run, causal)
    searcher_of(hparams, hparams["model"].deployed())
    hparams["longest"] = longest_trained(hparams)
    return hparams


def _record_of(
    config: SubnetConfig, subnets: list[BundledSubnet], model: Transducer
) -> BundledSubnet:
    """What is known of a subnet."""
    unmeasured = BundledSubnet(config.id, config, {"params": count_parameters(model, config)})
    return next((s for s in subnets if s.config == config), unmeasured)


def _found_best(path: Path, model: Transducer, budget: float) -> SubnetConfig:
    """The best subnet for a budget that a search of these weights found."""
    found = SearchResult.load(path)
    if found.checkpoint != weights_id(model):
        raise ConfigError(
            f"{path} is of other weights than the run's best: search again with another "
            "--study, and name it here"
        )
    return found.best(budget).config


def _write_web(parts: dict[str, Any], subnets: list[BundledSubnet]) -> None:
    """A folder a subnet, for the page of ``todm-sb serve``."""
    with _onnx_extra():
        from todm_sb.export.web import FILES, write_subnet
    parts = {key: value for key, value in parts.items() if key != "space"}
    folder, supernet = parts.pop("folder"), parts.pop("model")
    names = [f"{subnet.name}/{name}" for subnet in subnets for name in FILES]
    with new_export(folder, "web", names) as new:
        for subnet in subnets:
            model = extract_subnet(supernet, subnet.config)
            write_subnet(new / subnet.name, subnet, model, **parts)


@contextmanager
def _onnx_extra() -> Iterator[None]:
    """Says what to install where an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error}: pip install 'todm_sb[onnx]'") from None


def _write_onnx(parts: dict[str, Any], in_8_bits: bool) -> None:
    """ONNX models of one subnet; says so where sherpa-onnx cannot take them."""
    parts = dict(parts)
    if parts.pop("space") is not None:
        raise ConfigError("ONNX holds one subnet: choose it with --subnet or --budget")
    with _onnx_extra():
        from todm_sb.export.onnx import export_onnx
        from todm_sb.export.quantize import quantize_folder
    target = parts.pop("folder")
    has = {"norm_type": parts["normalize"].norm_type, **parts["fbank"]}
    lacks = [f"{key}: {value}" for key, value in STREAMING.items() if has.get(key) != value]
    if True in parts["model"].encoder.modes and lacks:
        logger.warning("%s cannot stream: train the network with %s", target, ", ".join(lacks))
    with tempfile.TemporaryDirectory() as temporary:
        obstacles = export_onnx(temporary if in_8_bits else target, **parts)
        if in_8_bits:
            quantize_folder(temporary, target)
    if obstacles:
        logger.warning("%s is not for sherpa-onnx: %s", target, "; ".join(obstacles))


def measured_subnets(
    run: Path,
    model: Transducer,
    space: SearchSpace,
    named: dict[str, dict],
    weights: str,
    causal: bool = False,
) -> list[BundledSubnet]:
    """The subnets worth recording: max, min, the named ones, and what a search found best.

    Error rates are comparable, since they come from one place: the dev set if these weights were
    searched, by whatever cost and in whatever study, else the first of the test sets that these
    weights were tested on. Those of a dual-mode network's causal mode are named so, e.g.
    ``WER-causal``.

    Args:
        run: folder of the run.
        model: what is exported.
        space: of the run.
        named: the run's own subnets.
        weights: tells the run's weights apart; with ``causal`` the model is a part of them.
        causal: the model is the causal form of a dual-mode network.
    """
    configs = {"max": space.max, "min": space.min}
    configs |= {name: SubnetConfig.from_dict(data) for name, data in named.items() if data}
    rates: dict[SubnetConfig, dict[str, float]] = {}
    costs: dict[SubnetConfig, dict[str, float]] = {}
    scored: dict[SubnetConfig, dict[str, Any]] = {}
    searches = _searches(run, weights_id(model), causal)
    for found in searches:
        # Multiply-accumulates are of one audio length only.
        left_out = {"macs"} if found.seconds != searches[0].seconds else set()
        for s in found.subnets:
            own = {key: value for key, value in s.costs.items() if key not in left_out}
            costs[s.config] = {**costs.get(s.config, {}), **own}
            rates[s.config] = {"WER": s.wer}
            if found.scored:
                scored[s.config] = found.scored
        taken = set(configs.values())
        configs |= {s.config.id: s.config for s in found.front() if s.config not in taken}
    if not rates:
        rates, scored = _rates_of_test(_results(run, weights), model.encoder.modes)
    return [
        BundledSubnet(
            name,
            space.check(config),
            {**costs.get(config, {}), "params": count_parameters(model, config)},
            rates.get(config, {}),
            scored.get(config),
        )
        for name, config in configs.items()
    ]


def _rates_of_test(
    results: list[dict[str, Any]], modes: Sequence[bool]
) -> tuple[dict[SubnetConfig, dict[str, float]], dict[SubnetConfig, dict[str, Any]]]:
    """Error rates of each subnet in the modes there are, and what they are of."""
    rates: dict[SubnetConfig, dict[str, float]] = {}
    scored: dict[SubnetConfig, dict[str, Any]] = {}
    for result in results:
        mode = bool(result.get("causal", modes[0]))
        if mode not in modes:
            continue
        config = SubnetConfig.pick(result)
        suffix = "-causal" if mode != modes[0] else ""
        own = {f"{key}{suffix}": result[key] for key in ("WER", "CER")}
        rates[config] = {**rates.get(config, {}), **own}
        if "utterances" in result:  # recorded by this version or a later one
            scored[config] = {key: result[key] for key in SCORED_KEYS}
    return rates, scored


def _results(run: Path, weights: str) -> list[dict[str, Any]]:
    """What the first test of these weights found."""
    for path in sorted(run.glob("results_*.json")):
        results = json.loads(path.read_text(encoding="utf-8"))
        if {result.get("weights") for result in results} == {weights}:
            return results
        logger.warning(
            "%s does not say that it is of the run's best weights: it is left out; to test these, "
            "train.py --test_only",
            path,
        )
    return []


def _searches(run: Path, checkpoint: str, causal: bool) -> list[SearchResult]:
    """What was found of these weights, on the dev set of the newest search: by each cost, the
    nameless study before those that have a name."""
    folders = [search_folder(run, cost, causal) for cost in COSTS]
    paths = [p for f in folders for p in (f / PARETO, *sorted(f.glob(f"*/{PARETO}")))]
    found = {path: SearchResult.load(path) for path in paths if path.is_file()}
    ours = {path: x for path, x in found.items() if x.checkpoint == checkpoint}
    newest = max(ours, key=lambda path: path.stat().st_mtime, default=None)
    dev_set = None if newest is None else ours[newest].dev_set
    for path, result in found.items():
        if path not in ours:
            logger.warning("%s is of other weights than the run's best: it is left out", path)
        elif result.dev_set != dev_set:
            logger.warning("%s is of another dev set than %s: it is left out", path, newest)
            del ours[path]
    return list(ours.values())
