"""What of a recipe the network decides that a training begins from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from todm_sb.nnet.encoders import causal_form, check_space
from todm_sb.space import DIMENSIONS, SearchSpace, SubnetConfig
from todm_sb.training.identity import flat, network_of
from todm_sb.training.sources import Source, plain
from todm_sb.utils.errors import ConfigError, quoted

# Of the network: what a training chooses anew.
FREE = ("dropout", "adaptive_dropout")
# Keys of the network's classes that no recipe gives.
NOT_OF_RECIPES = ("blank",)
# What a network that has learnt needs no more: max alone, short utterances first and plain audio
# for a while, statistics of its features. (SpeechBrain's normaliser updates them before this epoch,
# and counts from 1.)
LEARNT: dict[str, Any] = {
    "sandwich_warmup": 0,
    "ascending_epochs": 0,
    "augment_after": 0,
    "mask_after": None,
    "normalize": {"update_until_epoch": 1},
}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The leaves that two nested mappings both have and that differ: name, before, after."""
    for key, old, new in _shared(before, after):
        if old != new:
            yield key, old, new


def _shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    leaves, others = flat("", dict(a)), flat("", dict(b))
    for key in others:
        if key in leaves:
            yield key[1:], leaves[key], others[key]


def in_mode(source: Source, network: Any) -> Source:
    """The source as a causal network, where a recipe asks for one.

    Args:
        source: to begin from.
        network: the recipe's key ``model``.

    Raises:
        ConfigError: if it cannot be what is asked for.
    """
    encoder = network.get("encoder", {}) if isinstance(network, Mapping) else {}
    modes = source.model.encoder.modes
    if encoder.get("causal") and modes != (True,):
        causal_form(source.model.encoder)  # refuses one that needs whole utterances
        return replace(source, model=source.model.causal_form())
    if encoder.get("dual_mode") and len(modes) < 2:
        raise ConfigError("is of one mode, but the recipe wants dual_mode: set it False")
    return source


def decided_by(
    source: Source, given: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Overrides that make of a recipe one of the source's network.

    Args:
        source: to begin from.
        given: what the command line says.
        before: the recipe with these, resolved.

    Raises:
        ConfigError: if one of them contradicts the source.
    """
    network = network_of(source.model)
    encoder = {k: v for k, v in network["encoder"].items() if k not in FREE}
    predictor = {k: v for k, v in network["predictor"].items() if k not in (*FREE, *NOT_OF_RECIPES)}
    sizes = {key: network[key] for key in ("vocab_size", "d_joint")}
    decided = {
        "vocab_size": network["vocab_size"],
        **source.text,
        **source.fbank,
        "norm_type": source.norm_type,
    }
    decided = {key: value for key, value in decided.items() if key in before}
    decided["model"] = {**sizes, "encoder": encoder, "predictor": predictor}
    for key, asked, theirs in changes(given, decided):
        raise ConfigError(
            f"has {key} {quoted(theirs)}, not {quoted(asked)}: leave that out of the command line"
        )
    decided |= {
        key: value
        for key, value in LEARNT.items()
        if any(_shared(before, {key: value})) and not any(_shared(given, {key: value}))
    }
    if isinstance(before.get("search_space"), dict):
        space = _space(source, given.get("search_space"), before["search_space"])
        decided["search_space"] = space
        decided |= _outside(SearchSpace.from_dict(space), given, before.get("named_subnets"))
    return decided


def _space(source: Source, given: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """The search space: the source's; of a plain network it alone, unless another is asked for."""
    encoder = source.model.encoder
    depth = len(encoder.layers)
    asked = plain(given) if isinstance(given, dict) else {}
    known = {key: before[key] for key in DIMENSIONS if before.get(key) is not None}
    if source.space is not None:
        found = {**source.space.to_dict(), **asked}
    elif asked:
        found = {
            **before,
            "n_layers": depth,
            "min_layers": min(before.get("min_layers", depth), depth),
            **asked,
        }
    else:
        sizes = {key: {*encoder.dimensions.get(key, ())} for key in known}
        alike = {key: [*values] for key, values in sizes.items() if len(values) == 1}
        found = {"n_layers": depth, "min_layers": depth, **alike}
    space = SearchSpace.from_dict(found)
    check_space(space, encoder)
    return {**dict.fromkeys(known), **space.to_dict()}


def _outside(space: SearchSpace, given: Mapping[str, Any], named: Any) -> dict[str, Any]:
    """The recipe's own subnets that are none of the space, taken back."""
    if not isinstance(named, dict):
        return {}
    own = {k: v for k, v in named.items() if k not in (given.get("named_subnets") or {})}
    configs = {k: SubnetConfig.from_dict(dict(v)) for k, v in own.items() if v is not None}
    left_out = [name for name, config in configs.items() if not _fits(config, space)]
    return {"named_subnets": dict.fromkeys(left_out)} if left_out else {}


def _fits(config: SubnetConfig, space: SearchSpace) -> bool:
    try:
        space.check(config)
    except ConfigError:
        return False
    return True
