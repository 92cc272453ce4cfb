"""Subnets and the space they are drawn from."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from todm_sb.errors import ConfigError, quoted
from todm_sb.utils.schema import text

LAYER_DROPS = ("any", "top", "even")

# Far beyond any network; what a slip of the pen asks for must not exhaust the memory.
MOST_LAYERS = 128

# The name of a subnet: part of files' names, and of lists with commas.
SUBNET_NAME = text(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", "a name of up to 64 of A-Za-z0-9._+-")


@dataclass(frozen=True)
class SubnetConfig:
    """A choice of encoder layers and of an FFN width for each.

    Args:
        layers: indices of the active layers, ascending.
        ffn_dims: FFN width of each active layer.

    Raises:
        ConfigError: if they hold other than integers, differ in length or are empty, the layers
            are not ascending, or a width is not positive.
    """

    layers: tuple[int, ...]
    ffn_dims: tuple[int, ...]

    def __post_init__(self) -> None:
        for key in ("layers", "ffn_dims"):
            object.__setattr__(self, key, _integers(f"subnet: {key}", getattr(self, key)))
        if len(self.layers) != len(self.ffn_dims) or not self.layers:
            raise ConfigError(
                f"subnet has {len(self.layers)} layers but {len(self.ffn_dims)} ffn_dims: "
                "give one width a layer, and at least one layer"
            )
        if any(a >= b for a, b in zip((-1, *self.layers), self.layers, strict=False)):
            raise ConfigError(
                f"subnet layers must be ascending and >= 0, not {quoted(self.layers)}"
            )
        if min(self.ffn_dims) < 1:
            raise ConfigError(f"subnet ffn_dims must be positive, not {quoted(self.ffn_dims)}")

    @property
    def id(self) -> str:
        """Short and stable over runs and machines, e.g. ``6L-1f3a9c02``."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:8]
        return f"{len(self.layers)}L-{digest}"

    def to_dict(self) -> dict[str, list[int]]:
        """Plain types, for JSON and YAML."""
        return {"layers": list(self.layers), "ffn_dims": list(self.ffn_dims)}

    @classmethod
    def from_dict(cls, data: dict[str, Sequence[int]]) -> SubnetConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: if the keys are not ``layers`` and ``ffn_dims``.
        """
        if not isinstance(data, dict) or set(data) != {"layers", "ffn_dims"}:
            raise ConfigError(f"a subnet is a mapping of layers and ffn_dims, not {quoted(data)}")
        return cls(**data)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> SubnetConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            ConfigError: if the text is no JSON or no subnet.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not the JSON of a subnet: {quoted(text)} ({error})") from None
        return cls.from_dict(data)


@dataclass(frozen=True)
class SearchSpace:
    """Which subnets a supernet has.

    Args:
        n_layers: layers of the max subnet.
        min_layers: layers of the min subnet.
        ffn_dims: FFN widths a layer can have, ascending.
        layer_drop: how layers may be left out: ``any`` subset, only from the ``top``, or the rest
            spread ``even``-ly over the depth.

    Raises:
        ConfigError: if a value makes no sense.
    """

    n_layers: int
    min_layers: int
    ffn_dims: tuple[int, ...]
    layer_drop: str = "any"

    def __post_init__(self) -> None:
        widths = _integers("search space: ffn_dims", self.ffn_dims)
        object.__setattr__(self, "ffn_dims", widths)
        _integers("search space: n_layers and min_layers", (self.n_layers, self.min_layers))
        if not self.n_layers <= MOST_LAYERS:
            raise ConfigError(
                f"search space: n_layers must be at most {MOST_LAYERS}, not {self.n_layers}"
            )
        if not 1 <= self.min_layers <= self.n_layers:
            raise ConfigError(
                f"search space: min_layers ({self.min_layers}) must be in 1..{self.n_layers}"
            )
        if not self.ffn_dims or list(self.ffn_dims) != sorted(set(self.ffn_dims)):
            raise ConfigError(f"search space: ffn_dims must be ascending, not {quoted(widths)}")
        if self.ffn_dims[0] < 1:
            raise ConfigError(f"search space: ffn_dims must be positive, not {quoted(widths)}")
        if self.layer_drop not in LAYER_DROPS:
            raise ConfigError(
                f"search space: layer_drop must be one of {LAYER_DROPS}, "
                f"not {quoted(self.layer_drop)}"
            )

    @classmethod
    def from_dict(cls, data: dict) -> SearchSpace:
        """From plain types, as in a recipe's YAML.

        Raises:
            ConfigError: if it is no mapping, or on an unknown or missing key, naming it.
        """
        known = ("n_layers", "min_layers", "ffn_dims", "layer_drop")
        if not isinstance(data, dict):
            raise ConfigError(f"search space: a mapping of {known}, not {quoted(data)}")
        unknown = sorted(map(str, set(data) - set(known)))
        if unknown:
            raise ConfigError(f"search space: unknown key {quoted(unknown[0])}; known are {known}")
        missing = [key for key in known[:-1] if key not in data]
        if missing:
            raise ConfigError(f"search space: {missing[0]!r} is missing")
        return cls(**data)

    def to_dict(self) -> dict:
        """Inverse of :meth:`from_dict`."""
        return {
            "n_layers": self.n_layers,
            "min_layers": self.min_layers,
            "ffn_dims": list(self.ffn_dims),
            "layer_drop": self.layer_drop,
        }

    @property
    def max_ffn_dims(self) -> list[int]:
        """FFN width of each layer of the max subnet: the sizes to build a supernet with."""
        return [self.ffn_dims[-1]] * self.n_layers

    @property
    def max(self) -> SubnetConfig:
        """The largest subnet: every layer at its full width."""
        return SubnetConfig(tuple(range(self.n_layers)), tuple(self.max_ffn_dims))

    @property
    def min(self) -> SubnetConfig:
        """The smallest subnet: the fewest layers, each at its smallest width."""
        layers = self._canonical_layers(self.min_layers)
        return SubnetConfig(layers, self.ffn_dims[:1] * len(layers))

    @property
    def size(self) -> int:
        """Number of different subnets."""
        return sum(
            (math.comb(self.n_layers, depth) if self.layer_drop == "any" else 1)
            * len(self.ffn_dims) ** depth
            for depth in range(self.min_layers, self.n_layers + 1)
        )

    def __contains__(self, config: SubnetConfig) -> bool:
        depth = len(config.layers)
        return (
            self.min_layers <= depth <= self.n_layers
            and config.layers[-1] < self.n_layers
            and set(config.ffn_dims) <= set(self.ffn_dims)
            and (self.layer_drop == "any" or config.layers == self._canonical_layers(depth))
        )

    def check(self, config: SubnetConfig) -> SubnetConfig:
        """Returns the config if it is in the space.

        Raises:
            ConfigError: if it is not, saying what the space is.
        """
        if config not in self:
            raise ConfigError(
                f"subnet {config.to_json()} is outside the search space "
                f"{json.dumps(self.to_dict())}"
            )
        return config

    def random(self, rng: random.Random) -> SubnetConfig:
        """A random subnet: the depth uniform, then the layers, then each width."""
        depth = rng.randint(self.min_layers, self.n_layers)
        layers = self._random_layers(range(self.n_layers), depth, rng)
        return SubnetConfig(layers, tuple(rng.choice(self.ffn_dims) for _ in layers))

    def evenly_spaced(self, n: int) -> list[SubnetConfig]:
        """``n`` subnets from min to max, depth and widths growing together.

        Raises:
            ConfigError: if ``n`` is below 2.
        """
        if n < 2:
            raise ConfigError(f"evenly spaced subnets run from min to max: ask for 2, not {n}")
        configs = []
        for i in range(n):
            part = i / (n - 1)
            depth = round(self.min_layers + part * (self.n_layers - self.min_layers))
            # A mean width between two choices is met by giving some layers the larger one.
            steps = round(part * (len(self.ffn_dims) - 1) * depth)
            base, larger = divmod(steps, depth)
            widths = [self.ffn_dims[base]] * depth
            for j in _spread(larger, depth):
                widths[j] = self.ffn_dims[base + 1]
            configs.append(SubnetConfig(self._canonical_layers(depth), tuple(widths)))
        return configs

    def neighbours(self, config: SubnetConfig) -> list[SubnetConfig]:
        """All subnets one step away: one width a choice up or down, one layer more or less."""
        self.check(config)
        found = []
        for i, width in enumerate(config.ffn_dims):
            at = self.ffn_dims.index(width)
            for choice in self.ffn_dims[max(0, at - 1) : at] + self.ffn_dims[at + 1 : at + 2]:
                widths = (*config.ffn_dims[:i], choice, *config.ffn_dims[i + 1 :])
                found.append(SubnetConfig(config.layers, widths))
        widths_of = dict(zip(config.layers, config.ffn_dims, strict=True))
        for depth in (len(config.layers) - 1, len(config.layers) + 1):
            if self.min_layers <= depth <= self.n_layers:
                found.extend(
                    SubnetConfig(layers, _widths(layers, widths_of))
                    for layers in self._layer_steps(config.layers, depth)
                )
        return found

    def mutate(self, config: SubnetConfig, rng: random.Random, rate: float = 0.1) -> SubnetConfig:
        """Redraws the depth, and each width, with probability ``rate``; always changes something
        where the space has more than one subnet."""
        self.check(config)
        widths_of = dict(zip(config.layers, config.ffn_dims, strict=True))
        layers = config.layers
        if rng.random() < rate:
            depth = rng.randint(self.min_layers, self.n_layers)
            layers = self._random_layers(layers, depth, rng)
        widths = tuple(
            rng.choice(self.ffn_dims) if rng.random() < rate else width
            for width in _widths(layers, widths_of)
        )
        mutant = SubnetConfig(layers, widths)
        if mutant == config and (neighbours := self.neighbours(config)):
            return rng.choice(neighbours)
        return mutant

    def crossover(self, a: SubnetConfig, b: SubnetConfig, rng: random.Random) -> SubnetConfig:
        """A child with the depth of one parent, layers and widths from either."""
        for parent in (a, b):
            self.check(parent)
        depth = rng.choice((len(a.layers), len(b.layers)))
        layers = self._random_layers(sorted({*a.layers, *b.layers}), depth, rng)
        widths = [dict(zip(p.layers, p.ffn_dims, strict=True)) for p in (a, b)]
        return SubnetConfig(
            layers,
            tuple(rng.choice([w[i] for w in widths if i in w] or self.ffn_dims) for i in layers),
        )

    def _canonical_layers(self, depth: int) -> tuple[int, ...]:
        """The layers of a subnet of this depth where the drop rule leaves no choice (and, where
        it does, of the min and the evenly spaced subnets)."""
        if self.layer_drop == "top":
            return tuple(range(depth))
        return _spread(depth, self.n_layers)

    def _random_layers(
        self, preferred: Sequence[int], depth: int, rng: random.Random
    ) -> tuple[int, ...]:
        """Layers of this depth, drawn from the preferred ones as far as they go."""
        if self.layer_drop != "any":
            return self._canonical_layers(depth)
        chosen = rng.sample(list(preferred), min(depth, len(preferred)))
        others = [i for i in range(self.n_layers) if i not in preferred]
        return tuple(sorted(chosen + rng.sample(others, depth - len(chosen))))

    def _layer_steps(self, layers: tuple[int, ...], depth: int) -> list[tuple[int, ...]]:
        """The layer choices of this depth that are one layer away."""
        if self.layer_drop != "any":
            return [self._canonical_layers(depth)]
        if depth < len(layers):
            return [tuple(x for x in layers if x != drop) for drop in layers]
        missing = [i for i in range(self.n_layers) if i not in layers]
        return [tuple(sorted((*layers, i))) for i in missing]


def _integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or not all(type(v) is int for v in values):
        raise ConfigError(f"{name} must be integers, not {quoted(values)}")
    return tuple(values)


def _spread(count: int, total: int) -> tuple[int, ...]:
    """``count`` of ``range(total)``, evenly spread, first and last included where count > 1."""
    if count == 1:
        return (total // 2,)
    return tuple(round(i * (total - 1) / (count - 1)) for i in range(count))


def _widths(layers: tuple[int, ...], widths_of: dict[int, int]) -> tuple[int, ...]:
    """Known widths, and that of the nearest known layer for a new one."""
    return tuple(widths_of[min(widths_of, key=lambda j: (abs(j - i), j))] for i in layers)
