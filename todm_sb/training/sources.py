"""Networks that a training can begin from, in each form that this package leaves them.

A run's folder is trusted: its recipe can run code; so none is taken from the Hub. A bundle is not;
nor is a SpeechBrain folder of ``todm-sb export``, of which only plain values and tensors are read
here.
"""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml.error import YAMLError

from todm_sb.bundle.bundle import MANIFEST, read_bundle
from todm_sb.bundle.manifest import TOKENIZER
from todm_sb.nnet.encoders import check_space
from todm_sb.nnet.features import make_fbank
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet import extract_subnet
from todm_sb.training.identity import FEATURE_KEYS, TEXT_KEYS
from todm_sb.training.recipe import RECIPE, yaml_of
from todm_sb.training.runs import load_run, trained_tokenizer
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.hub import SNAPSHOTS, is_of_hub, model_folder
from todm_sb.utils.processes import on_first

WEIGHTS = "model.ckpt"
KEEP = "keep"
DAMAGED = (YAMLError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Source:
    """A trained network, and what it cannot do without.

    Args:
        model: the network; a supernet if ``space`` is given.
        tokenizer: the SentencePiece model.
        fbank: all arguments of :func:`todm_sb.nnet.features.make_fbank`.
        norm_type: of its normaliser.
        statistics: of the normaliser, as SpeechBrain's InputNormalization keeps them.
        space: of a supernet; None of a network by itself.
        named: subnets by their names.
        text: what else the source knows of its transcripts, by a recipe's keys.
    """

    model: Transducer
    tokenizer: bytes
    fbank: dict[str, Any]
    norm_type: str
    statistics: dict[str, Any]
    space: SearchSpace | None = None
    named: dict[str, SubnetConfig] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)

    def cut(self, subnet: str) -> Source:
        """One subnet of a supernet, as a network by itself.

        Args:
            subnet: max, min, a name, or JSON.

        Raises:
            ConfigError: if there is no such subnet, or this is no supernet.
        """
        if self.space is None:
            raise ConfigError("is a single network: leave out --init_subnet")
        config = self.space.named(subnet, self.named)
        return replace(self, model=extract_subnet(self.model, config), space=None)


def locate(place: str) -> Path:
    """The folder of a source; one of the Hub is fetched, the same commit for all processes.

    Raises:
        ConfigError: if there is none.
    """
    folder = on_first(model_folder, place)
    if folder.parent.name == SNAPSHOTS and not folder.is_dir():  # in the cache of another machine
        folder = model_folder(f"{place.partition('@')[0]}@{folder.name}")
    if not folder.is_dir():
        raise ConfigError("there is no such folder")
    return folder


def read_source(place: str, subnet: str | None = None) -> Source:
    """Reads a run, a bundle, or a SpeechBrain folder of ``todm-sb export``.

    Args:
        place: where it is, as the user says it: a folder, or a repository of the Hub (see
            :func:`todm_sb.utils.hub.model_folder`).
        subnet: one subnet of a supernet (max, min, a name, JSON); None for all that is there.

    Raises:
        ConfigError: if it is none of these, or cannot be used.
    """
    try:
        folder = locate(place)
        if (folder / MANIFEST).is_file():
            source = _from_bundle(folder)
        elif (folder / WEIGHTS).is_file() and (folder / RECIPE).is_file():
            source = _from_export(folder)
        elif (folder / RECIPE).is_file() and not is_of_hub(place):
            source = _from_run(folder)
        else:
            raise ConfigError(
                "holds neither a training run nor a bundle or SpeechBrain folder of todm-sb export"
            )
        return source if subnet is None else source.cut(subnet)
    except ConfigError as error:
        raise ConfigError(f"init_from {place}: {error}") from error


def _from_bundle(folder: Path) -> Source:
    bundle = read_bundle(folder)
    features = bundle.manifest.features
    return Source(
        bundle.model,
        (folder / TOKENIZER).read_bytes(),
        _whole_fbank({k: v for k, v in features.items() if k not in ("mean", "std")}),
        bundle.normalize.norm_type,
        bundle.normalize._statistics_dict(),
        bundle.manifest.space,
        {subnet.name: subnet.config for subnet in bundle.manifest.subnets},
    )


def _from_run(folder: Path) -> Source:
    hparams = load_run(folder)
    model, space, normalize = (hparams[key] for key in ("model", "space", "normalize"))
    named = {k: SubnetConfig.from_dict(v) for k, v in (hparams["named_subnets"] or {}).items() if v}
    text = {key: hparams[key] for key in TEXT_KEYS if hparams.get(key, KEEP) != KEEP}
    options = {key: hparams[key] for key in FEATURE_KEYS if key in hparams}
    return Source(
        model,
        trained_tokenizer(folder, hparams).read_bytes(),
        _whole_fbank({**options, **getattr(hparams["features"].fbank, "options", {})}),
        normalize.norm_type,
        normalize._statistics_dict(),
        space if space.size > 1 else None,
        named,
        {"tokenizer_type": hparams["tokenizer_type"], **text},
    )


def _from_export(folder: Path) -> Source:
    """Nothing in the folder's YAML is built; what is taken of it are the arguments in it."""
    try:
        tree = yaml_of().load((folder / RECIPE).read_text(encoding="utf-8"))
        network, fbank = plain(tree["model"]), plain(tree["features"]["fbank"])
        space = SearchSpace.from_dict(plain(tree["space"])) if "space" in tree else None
        norm_type = str(tree["normalize"]["norm_type"])
        model = Transducer(**network).eval()
        model.load_state_dict(torch.load(folder / WEIGHTS, "cpu", weights_only=True))
        statistics = torch.load(folder / "normalize.ckpt", "cpu", weights_only=True)
        tokenizer = (folder / "tokenizer.ckpt").read_bytes()
    except ConfigError:
        raise
    except (LookupError, OSError, RuntimeError, TypeError, ValueError, *DAMAGED) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"is no SpeechBrain folder of todm-sb export ({reason})") from error
    if space is not None:
        check_space(space, model.encoder)
    return Source(model, tokenizer, _whole_fbank(fbank), norm_type, statistics, space)


def plain(node: Any) -> dict[str, Any]:
    """A mapping of a YAML as plain values; its tags count for nothing.

    Raises:
        ConfigError: if it is no mapping.
    """
    if not isinstance(node, Mapping):
        raise ConfigError(f"{RECIPE}: a mapping is needed, not {quoted(node)}")
    return json.loads(json.dumps(node, default=str))


def _whole_fbank(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a filterbank, those that were left out too."""
    parameters = inspect.signature(make_fbank).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**defaults, **options}
