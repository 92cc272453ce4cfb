"""What a bundle says of itself: its JSON, checked key by key before anything is built from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from todm_sb.nnet.encoders import Encoder, check_space
from todm_sb.nnet.features import FBANK_CHECKS, FBANK_OPTION_CHECKS, check_window
from todm_sb.nnet.transducer import AUXILIARIES, NETWORK_CHECKS
from todm_sb.space import DIMENSIONS, SUBNET_NAME, SearchSpace, SubnetConfig
from todm_sb.space.search_space import MOST_LAYERS
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import (
    flag,
    integer,
    mapping,
    nullable,
    number,
    one_of,
    sequence,
    table,
    text,
)

FORMAT, VERSION = "todm_sb bundle", 1
# A file's name is a constant of the format: no name from a bundle is ever used as a path.
WEIGHTS, TOKENIZER = "weights.safetensors", "tokenizer.model"
MAX_SUBNETS = 1000

NETWORK_KEYS = tuple(NETWORK_CHECKS)
_STATISTICS = sequence(number(-1e6, 1e6), 1, 1024)
_FEATURES = mapping(
    {
        **FBANK_CHECKS,
        # Those of global normalisation; null where each utterance has its own.
        "mean": nullable(_STATISTICS),
        "std": nullable(sequence(number(0, 1e6), 1, 1024)),
    },
    FBANK_OPTION_CHECKS,
)
# Of a space, or of a subnet: numbers by elastic dimension.
_CHOICES = {
    key: sequence(integer(1, dimension.largest), 1, MOST_LAYERS)
    for key, dimension in DIMENSIONS.items()
}
_SPACE = mapping(
    {
        "n_layers": integer(1, MOST_LAYERS),
        "min_layers": integer(1, MOST_LAYERS),
        "layer_drop": text("any|top|even"),
    },
    _CHOICES,
)
_FIGURES = table(SUBNET_NAME, number(0, 1e18), 64)
_COUNT = integer(0, 1 << 40)
_SCORED = mapping(
    {
        "utterances": _COUNT,
        "words": _COUNT,
        "undecodable": _COUNT,
        "left_out": table(text(r"[ -~]{1,200}"), _COUNT, 64),
    }
)
_SUBNET = mapping(
    {
        "name": SUBNET_NAME,
        "layers": sequence(integer(0, MOST_LAYERS - 1), 1, MOST_LAYERS),
        "cost": _FIGURES,
        "error_rates": _FIGURES,
    },
    {**_CHOICES, "scored": _SCORED},
)
_FILE = mapping({"bytes": integer(1, 1 << 40), "sha256": text("[0-9a-f]{64}")})
_MANIFEST = mapping(
    {
        "format": one_of(FORMAT),
        "version": one_of(VERSION),
        "files": mapping({WEIGHTS: _FILE, TOKENIZER: _FILE}),
        # Auxiliaries are in what is to be trained further.
        "network": mapping(NETWORK_CHECKS, dict.fromkeys(AUXILIARIES.values(), flag)),
        "features": _FEATURES,
        "max_symbols": integer(1, 100),
        "space": nullable(_SPACE),
        "subnets": sequence(_SUBNET, 1, MAX_SUBNETS),
    },
    {"longest_seconds": number(0, 1e6)},
)


@dataclass(frozen=True)
class FileRecord:
    """Size and hash that a file of a bundle has to have."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class BundledSubnet:
    """A subnet that was measured before the bundle was written.

    Args:
        name: to choose it by.
        config: the subnet, by the layers of the supernet it was trained in.
        cost: as of :class:`todm_sb.search.costs.Costs`; ``params`` is always there, ``latency``
            (seconds) where it was measured.
        error_rates: percentages by name, such as ``WER`` and ``CER``.
        scored: what the error rates are of: ``utterances``, ``words``, ``undecodable`` (of the
            utterances; their words count as deleted) and ``left_out`` (the number for each cause);
            None where nothing was measured, or it was not recorded.
    """

    name: str
    config: SubnetConfig
    cost: dict[str, float]
    error_rates: dict[str, float] = field(default_factory=dict)
    scored: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "name": self.name,
            **self.config.to_dict(),
            "cost": self.cost,
            "error_rates": self.error_rates,
            **({} if self.scored is None else {"scored": self.scored}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BundledSubnet:
        """Inverse of :meth:`to_dict`, for checked data."""
        config = SubnetConfig.pick(data)
        return cls(data["name"], config, data["cost"], data["error_rates"], data.get("scored"))


@dataclass(frozen=True)
class Manifest:
    """Everything in a bundle but weights and tokenizer.

    Args:
        files: record of each file, by name.
        network: arguments of :class:`todm_sb.nnet.transducer.Transducer`; those of training only
            where the bundle has these parts.
        features: arguments of :func:`todm_sb.nnet.features.make_fbank`, and the ``mean`` and
            ``std`` of each feature, None for those of each utterance.
        max_symbols: labels a frame at most in greedy search.
        space: of a supernet; None of a single subnet.
        subnets: those that were measured; the one subnet itself, if it is a single one.
        longest_seconds: the longest utterance that was trained on, if it is known.
    """

    files: dict[str, FileRecord]
    network: dict[str, Any]
    features: dict[str, Any]
    max_symbols: int
    space: SearchSpace | None
    subnets: tuple[BundledSubnet, ...]
    longest_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "files": {name: dataclasses.asdict(record) for name, record in self.files.items()},
            "network": self.network,
            "features": self.features,
            "max_symbols": self.max_symbols,
            "space": self.space and self.space.to_dict(),
            "subnets": [subnet.to_dict() for subnet in self.subnets],
            **({} if self.longest_seconds is None else {"longest_seconds": self.longest_seconds}),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Manifest:
        """Inverse of :meth:`to_dict`; the data may be anything at all.

        Raises:
            ConfigError: if it is not a manifest of this version, or contradicts itself.
        """
        _check_version(data)
        _MANIFEST(data, "bundle")
        manifest = cls(
            files={name: FileRecord(**record) for name, record in data["files"].items()},
            network=data["network"],
            features=data["features"],
            max_symbols=data["max_symbols"],
            space=data["space"] and SearchSpace.from_dict(data["space"]),
            subnets=tuple(BundledSubnet.from_dict(subnet) for subnet in data["subnets"]),
            longest_seconds=data.get("longest_seconds"),
        )
        manifest._check_features()
        manifest._check_subnets()
        return manifest

    def _check_features(self) -> None:
        features = self.features
        sizes = {"network.encoder.n_features": self.network["encoder"]["n_features"]}
        if features["mean"] is not None and features["std"] is not None:
            sizes["the length of features.mean"] = len(features["mean"])
            sizes["the length of features.std"] = len(features["std"])
        elif features["mean"] != features["std"]:
            raise ConfigError("features.mean and features.std must both be given, or both be null")
        for name, size in sizes.items():
            if size != features["n_mels"]:
                raise ConfigError(f"{name} is {size}, but features.n_mels {features['n_mels']}")
        check_window(features)

    def _check_subnets(self) -> None:
        if self.space is None:
            if len(self.subnets) > 1:
                raise ConfigError("without a space, the one subnet must be the network itself")
            return
        names = [subnet.name for subnet in self.subnets]
        if len(set(names)) < len(names):
            raise ConfigError("two subnets have the same name")
        for subnet in self.subnets:
            self.space.check(subnet.config)
            if subnet.name in ("max", "min") and subnet.config != getattr(self.space, subnet.name):
                raise ConfigError(f"the subnet named {subnet.name} is another one in the space")

    def check_network(self, encoder: Encoder) -> None:
        """Makes sure that the subnets are those of the network that is described.

        Raises:
            ConfigError: if not.
        """
        if self.space is not None:
            check_space(self.space, encoder)
            return
        config = self.subnets[0].config
        sizes = {key: encoder.dimensions.get(key) for key, _ in config.choices}
        if len(config.layers) != len(encoder.layers) or sizes != dict(config.choices):
            raise ConfigError("without a space, the one subnet must be the network itself")

    def choose(
        self,
        subnet: SubnetConfig | str | None = None,
        max_params: float | None = None,
        max_latency_ms: float | None = None,
    ) -> SubnetConfig | None:
        """The subnet to use.

        Args:
            subnet: name of a recorded subnet, ``max``, ``min``, or any config of the space, also
                as JSON.
            max_params: instead, the best recorded subnet of at most so many parameters.
            max_latency_ms: and of at most this recorded latency, in milliseconds.

        Returns:
            A config of the space: max if nothing is asked for. None of a single subnet, which
            there is no choice of.

        Raises:
            ConfigError: if there is no such subnet, or both a subnet and limits are given.
        """
        limits: dict[str, float] = {}
        if max_params is not None:
            limits["params"] = max_params
        if max_latency_ms is not None:
            limits["latency"] = max_latency_ms / 1e3
        if subnet is not None and limits:
            raise ConfigError("give a subnet or limits to choose it by, not both")
        found = best_within(self.subnets, limits).config if limits else self._named(subnet)
        return None if self.space is None else found

    def _named(self, subnet: SubnetConfig | str | None) -> SubnetConfig:
        recorded = {s.name: s.config for s in self.subnets}
        if self.space is None:
            (config,) = recorded.values()
            asked = subnet
            if isinstance(subnet, str) and subnet.lstrip().startswith("{"):
                asked = SubnetConfig.from_json(subnet)
            if asked in (None, config, *recorded):
                return config
            raise ConfigError(f"holds the single subnet {next(iter(recorded))}, not {subnet!r}")
        return self.space.named("max" if subnet is None else subnet, recorded)


def _check_version(data: Any) -> None:
    """A bundle of another version gets a message of its own, whatever else differs."""
    if type(data) is not dict or data.get("format") != FORMAT:
        raise ConfigError(f"bundle.json does not say that its format is {FORMAT!r}")
    version = data.get("version")
    integer(1, 1 << 30)(version, "version")
    if version != VERSION:
        raise ConfigError(f"is of version {version}, but this todm_sb reads {VERSION}: update it")


def best_within(subnets: Sequence[BundledSubnet], limits: dict[str, float]) -> BundledSubnet:
    """The subnet of the lowest WER among those within limits; of equal or unknown WER, the one
    with the most parameters. Where none has one but in 8 bits, as after a search with no other
    precision, that counts.

    Args:
        subnets: to choose from; one without the figure that a limit is on is not chosen.
        limits: largest figure of ``cost`` by name.

    Raises:
        ConfigError: if none is within the limits, saying what there is.
    """
    for key, limit in limits.items():
        figures = [subnet.cost[key] for subnet in subnets if key in subnet.cost]
        if not figures:
            raise ConfigError(f"records no {key} of any subnet, which a limit could apply to")
        if min(figures) > limit:
            shown, least = (_shown(x, key) for x in (limit, min(figures)))
            raise ConfigError(f"no recorded subnet has {key} <= {shown}; least is {least}")
    within = [
        subnet
        for subnet in subnets
        if all(subnet.cost.get(key, float("inf")) <= limit for key, limit in limits.items())
    ]
    if not within:
        raise ConfigError(f"no recorded subnet is within all of the limits {json.dumps(limits)}")
    rate = "WER" if any("WER" in subnet.error_rates for subnet in within) else "WER-int8"
    return min(
        within,
        key=lambda s: (s.error_rates.get(rate, float("inf")), -s.cost["params"]),
    )


def _shown(value: float, cost: str) -> str:
    return f"{1e3 * value:,g} ms" if cost == "latency" else f"{value:,}"
