"""From a training run to a folder that is deployed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from todm_sb.bundle.bundle import write_bundle
from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.export.measured import PARETO, Measured, measured_subnets
from todm_sb.export.model_card import CardFacts, model_card, training_lines
from todm_sb.export.speechbrain import export_folder
from todm_sb.nnet.encoders import onnx_form
from todm_sb.nnet.features import check_exportable
from todm_sb.nnet.subsampling import KERNEL
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.budget import parse_budget
from todm_sb.search.pareto import SearchResult
from todm_sb.search.probes import PRECISIONS
from todm_sb.supernet import SubnetConfig, count_parameters, extract_subnet
from todm_sb.training.runs import (
    load_run,
    search_folder,
    trained_durations,
    trained_tokenizer,
    weights_id,
)
from todm_sb.training.searcher import max_symbols_of, searcher_of, told_of
from todm_sb.training.settings import CARD
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.extras import named_packages
from todm_sb.utils.ownership import check_place

logger = logging.getLogger(__name__)

# What a causal network must have been trained with to stream.
STREAMING = {"norm_type": "global", "fbank_kind": "kaldi", "snip_edges": True}

SUPERNET = "supernet"
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
    about: Mapping[str, Any] | None = None,
) -> int:
    """Writes the best weights of a run, and returns how many parameters are exported.

    Args:
        run: ``output_folder`` of train.py.
        target: folder to write; an earlier export there is replaced.
        subnet: name or JSON of a subnet to cut out, or ``supernet`` for all of them.
        budget: instead, the best subnet that todm-sb search found for it, e.g. ``5M``; for
            ``onnx-int8``, by error rates in 8 bits if it was searched by them.
        cost: what the budget is of.
        form: one of :data:`FORMATS`; a bundle ``for_training`` keeps CTC head and simple joiner.
        causal: of a dual-mode network, what streaming needs and no more.
        study: name of the search that found it; None for the nameless one.
        about: for the model card, in place of what the run's key ``card`` says: ``language``,
            ``license`` and ``dataset``.

    Raises:
        ConfigError: if something of the run is not there, the search was of other weights, the
            target is no place for an export, or the card is told what it has not.
    """
    CARD(about or {}, "card")
    check_place(target, run)
    hparams = _load_deployable(run, causal)
    model, space = hparams["model"], hparams["space"]
    measured, config = _measured(run, hparams, causal), None
    if budget is not None:
        found = _search_of(run, cost, causal, study, form)
        config = space.check(_found_best(found, model, parse_budget(budget, cost)))
    elif subnet != SUPERNET:
        config = space.named(subnet, {s.name: s.config for s in measured.subnets})
    if config is not None:
        measured = replace(measured, subnets=[_record_of(config, measured.subnets, model)])
    parts = {
        **common_parts(run, hparams),
        "longest_seconds": hparams["longest"],
        "folder": target,
        "model": model if config is None else extract_subnet(model, config),
        "space": space if config is None else None,
        "card": _card(run, hparams, form, measured, config is None, about or {}, target),
    }
    if form == "web":
        _write_web({**parts, "model": model}, measured.subnets)
    elif form == "bundle":
        write_bundle(**parts, subnets=measured.subnets, for_training=for_training)
    else:
        _write_network(form, parts, hparams)
    return count_parameters(model, config or space.max)


def common_parts(run: Path, hparams: dict[str, Any]) -> dict[str, Any]:
    """What every subnet of a run is exported with: ``normalize``, ``tokenizer_path``, ``fbank`` and
    ``max_symbols``, as the functions that write exports take them.

    Args:
        run: ``output_folder`` of train.py.
        hparams: of it, as :func:`todm_sb.training.runs.load_run` gives them.

    Raises:
        ConfigError: if its tokenizer is missing, or its features are none that an export can hold.
    """
    fbank = hparams["features"].fbank
    if not hasattr(fbank, "options"):
        raise ConfigError(
            f"features: an export can hold no {type(fbank).__name__} as fbank: train with "
            "!apply:todm_sb.nnet.features.make_fbank"
        )
    check_exportable(hparams["normalize"])
    return {
        "normalize": hparams["normalize"],
        "tokenizer_path": trained_tokenizer(run, hparams),
        "fbank": dict(fbank.options),
        "max_symbols": max_symbols_of(hparams, hparams["model"]),
    }


def _measured(run: Path, hparams: dict[str, Any], causal: bool) -> Measured:
    """See :func:`measured_subnets`, of a run that is loaded."""
    named, weights = hparams["named_subnets"] or {}, hparams["weights"]
    model, dev_set = hparams["model"], Path(hparams["valid_csv"]).stem
    exported = TransducerSearcher(model, max_symbols=max_symbols_of(hparams, model))
    return measured_subnets(
        run, model, hparams["space"], named, weights, told_of(exported), causal, dev_set
    )


def _card(
    run: Path,
    hparams: dict[str, Any],
    form: str,
    measured: Measured,
    family: bool,
    about: Mapping[str, Any],
    target: Path,
) -> str:
    """The text of the model card."""
    what = "A family of networks" if family else "A network"
    kind = type(hparams["model"].encoder).kind
    told = {**(hparams.get("card") or {}), **about}
    CARD(told, "card")
    facts = CardFacts(
        name=target.resolve().name,
        form=form,
        network=f"{what} for speech recognition: RNN-T, encoder of kind {kind}",
        subnets=measured.subnets,
        rates=measured.rates,
        scored=measured.scored,
        family=family,
        training=training_lines(run, hparams, hparams["durations"]),
        **told,
    )
    return model_card(facts)


def _write_network(form: str, parts: dict[str, Any], hparams: dict[str, Any]) -> None:
    """Writes one network in a form that knows no subnets."""
    if form == "speechbrain":
        export_folder(**parts, hop=hparams["features"].hop)
    else:
        _write_onnx(parts, form == "onnx-int8")


def _load_deployable(run: Path, causal: bool) -> dict[str, Any]:
    """As :func:`load_run`, and ``durations``, seconds of the utterances of training, and the
    ``longest`` of them; refuses a run that decodes with what no exported network has."""
    hparams = load_run(run, causal)
    searcher_of(hparams, hparams["model"].deployed())
    hparams["durations"] = trained_durations(hparams)
    hparams["longest"] = max(hparams["durations"], default=None)
    return hparams


def _record_of(
    config: SubnetConfig, subnets: list[BundledSubnet], model: Transducer
) -> BundledSubnet:
    """What is known of a subnet."""
    unmeasured = BundledSubnet(config.id, config, {"params": count_parameters(model, config)})
    return next((s for s in subnets if s.config == config), unmeasured)


def _search_of(run: Path, cost: str, causal: bool, study: str | None, form: str) -> Path:
    """The search whose error rates are nearest to those of the form."""
    exact, small = (search_folder(run, cost, causal, study, p) / PARETO for p in PRECISIONS)
    return small if form == "onnx-int8" and small.is_file() else exact


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
    with named_packages("export to ONNX"):
        from todm_sb.export.web import export_web
    export_web(**{k: v for k, v in parts.items() if k != "space"}, subnets=subnets)


def _write_onnx(parts: dict[str, Any], in_8_bits: bool) -> None:
    """ONNX models of one subnet; says so where sherpa-onnx cannot take them."""
    parts = dict(parts)
    if parts.pop("space") is not None:
        raise ConfigError("ONNX holds one subnet: choose it with --subnet or --budget")
    with named_packages("export to ONNX"):
        from todm_sb.export.onnx import export_onnx
    target = parts["folder"]
    has = {"norm_type": parts["normalize"].norm_type, **parts["fbank"]}
    lacks = [f"{key}: {value}" for key, value in STREAMING.items() if has.get(key) != value]
    encoder = parts["model"].encoder
    if not onnx_form(encoder).subsampling.has_chunks:
        lacks.append(f"time_strides of at most {KERNEL}")
    if True in encoder.modes and lacks:
        logger.warning("%s cannot stream: train the network with %s", target, ", ".join(lacks))
    if obstacles := export_onnx(**parts, in_8_bits=in_8_bits):
        logger.warning("%s is not for sherpa-onnx: %s", target, "; ".join(obstacles))
