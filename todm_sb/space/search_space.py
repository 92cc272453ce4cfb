"""The space that subnets are drawn from: how deep, and which choices of each elastic dimension."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from todm_sb.space.dimensions import DIMENSIONS
from todm_sb.space.subnet import SubnetConfig, integers, known_dimensions
from todm_sb.utils.errors import ConfigError, quoted

LAYER_DROPS = ("any", "top", "even")

# Far beyond any network; what a slip of the pen asks for must not exhaust the memory.
MOST_LAYERS = 128


@dataclass(frozen=True, init=False)
class SearchSpace:
    """Which subnets a supernet has.

    Args:
        n_layers: layers of the max subnet.
        min_layers: layers of the min subnet.
        layer_drop: how layers may be left out: ``any`` subset, only from the ``top``, or the rest
            spread ``even``-ly over the depth.
        **choices: for each elastic dimension that varies, by its key, what a layer can have,
            ascending.

    Raises:
        ConfigError: if a value makes no sense.
    """

    n_layers: int
    min_layers: int
    layer_drop: str
    choices: tuple[tuple[str, tuple[int, ...]], ...]

    def __init__(
        self, n_layers: int, min_layers: int, layer_drop: str = "any", **choices: Sequence[int]
    ) -> None:
        integers("search space: n_layers and min_layers", (n_layers, min_layers))
        if not n_layers <= MOST_LAYERS:
            raise ConfigError(
                f"search space: n_layers must be at most {MOST_LAYERS}, not {n_layers}"
            )
        if not 1 <= min_layers <= n_layers:
            raise ConfigError(f"search space: min_layers ({min_layers}) must be in 1..{n_layers}")
        if layer_drop not in LAYER_DROPS:
            raise ConfigError(
                f"search space: layer_drop must be one of {LAYER_DROPS}, not {quoted(layer_drop)}"
            )
        known = known_dimensions("search space", choices)
        for key, values in known.items():
            if not values or list(values) != sorted(set(values)):
                raise ConfigError(f"search space: {key} must be ascending, not {quoted(values)}")
            if not 1 <= values[0] <= values[-1] <= DIMENSIONS[key].largest:
                raise ConfigError(
                    f"search space: {key} must be positive, and at most "
                    f"{DIMENSIONS[key].largest}, not {quoted(values)}"
                )
        object.__setattr__(self, "n_layers", n_layers)
        object.__setattr__(self, "min_layers", min_layers)
        object.__setattr__(self, "layer_drop", layer_drop)
        object.__setattr__(self, "choices", tuple(known.items()))

    @classmethod
    def from_dict(cls, data: Any) -> SearchSpace:
        """From plain types, as in a recipe's YAML. A dimension that is null does not vary: so a
        recipe leaves out one that its base has.

        Raises:
            ConfigError: if it is no mapping, or on an unknown or missing key, naming it.
        """
        needed = ("n_layers", "min_layers")
        known = (*needed, "layer_drop", *DIMENSIONS)
        if not isinstance(data, dict):
            raise ConfigError(f"search space: a mapping of {known}, not {quoted(data)}")
        unknown = sorted(map(str, set(data) - set(known)))
        if unknown:
            raise ConfigError(f"search space: unknown key {quoted(unknown[0])}; known are {known}")
        missing = [key for key in needed if key not in data]
        if missing:
            raise ConfigError(f"search space: {missing[0]!r} is missing")
        return cls(**{k: v for k, v in data.items() if v is not None or k not in DIMENSIONS})

    def to_dict(self) -> dict[str, Any]:
        """Inverse of :meth:`from_dict`."""
        return {
            "n_layers": self.n_layers,
            "min_layers": self.min_layers,
            **{key: [*values] for key, values in self.choices},
            "layer_drop": self.layer_drop,
        }

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.min_layers} to {self.n_layers} layers"]
        for key, values in self.choices:
            parts.append(f"{DIMENSIONS[key].label} {', '.join(map(str, values))}")
        return "; ".join([*parts, f"layers left out: {self.layer_drop}"])

    def __getitem__(self, key: str) -> tuple[int, ...]:
        """What a layer can have of a dimension, ascending; KeyError of one that does not vary."""
        return dict(self.choices)[key]

    @property
    def sizes(self) -> dict[str, list[int]]:
        """The max subnet's choice of each dimension that varies, layer by layer: what an encoder
        of this space is built with."""
        return {key: [values[-1]] * self.n_layers for key, values in self.choices}

    @property
    def max(self) -> SubnetConfig:
        """The largest subnet: every layer, at its full size."""
        return SubnetConfig(tuple(range(self.n_layers)), **self.sizes)

    @property
    def min(self) -> SubnetConfig:
        """The smallest subnet: the fewest layers, each at its smallest size."""
        return self._uniform(self.min_layers, [values[0] for _, values in self.choices])

    @property
    def size(self) -> int:
        """Number of different subnets."""
        a_layer = math.prod(len(values) for _, values in self.choices)
        return sum(
            (math.comb(self.n_layers, depth) if self.layer_drop == "any" else 1) * a_layer**depth
            for depth in self._depths()
        )

    def uniform(self) -> list[SubnetConfig]:
        """The subnets whose layers are all alike, one of each depth and choice."""
        products = itertools.product(*(values for _, values in self.choices))
        return [
            self._uniform(depth, choice)
            for choice in map(list, products)
            for depth in self._depths()
        ]

    @classmethod
    def of_one(cls, config: SubnetConfig) -> SearchSpace:
        """The space whose one subnet is a network of this uniform subnet's size.

        Raises:
            ConfigError: if its layers are not alike.
        """
        if any(len(set(values)) > 1 for _, values in config.choices):
            raise ConfigError(f"subnet {config.to_json()} is not uniform")
        depth = len(config.layers)
        choices = {key: values[:1] for key, values in config.choices}
        return cls(depth, depth, LAYER_DROPS[0], **choices)

    def __contains__(self, config: SubnetConfig) -> bool:
        depth, chosen = len(config.layers), dict(config.choices)
        return (
            self.min_layers <= depth <= self.n_layers
            and config.layers[-1] < self.n_layers
            and chosen.keys() == dict(self.choices).keys()
            and all(set(chosen[key]) <= set(values) for key, values in self.choices)
            and (self.layer_drop == "any" or config.layers == self._canonical_layers(depth))
        )

    def check(self, config: SubnetConfig) -> SubnetConfig:
        """Returns the config, with the dimensions that it leaves out, if it is in the space.

        Raises:
            ConfigError: if it is not, saying what the space is.
        """
        chosen, whole = dict(config.choices), config
        if left_out := dict(self.choices).keys() - chosen.keys():
            largest = {key: [self[key][-1]] * len(config.layers) for key in left_out}
            whole = SubnetConfig(config.layers, **chosen, **largest)
        if whole not in self:
            raise ConfigError(
                f"subnet {config.to_json()} is outside the search space "
                f"{json.dumps(self.to_dict())}"
            )
        return whole

    def named(
        self, subnet: SubnetConfig | str, recorded: Mapping[str, SubnetConfig] | None = None
    ) -> SubnetConfig:
        """A subnet as people ask for it: a config, its JSON, ``max``, ``min``, or another name.

        Args:
            subnet: what is asked for.
            recorded: subnets by their names.

        Raises:
            ConfigError: if it is outside the space, or not understood.
        """
        recorded = {"max": self.max, "min": self.min, **(recorded or {})}
        if isinstance(subnet, SubnetConfig):
            return self.check(subnet)
        if isinstance(subnet, str) and subnet in recorded:
            return self.check(recorded[subnet])
        if isinstance(subnet, str) and subnet.lstrip().startswith("{"):
            return self.check(SubnetConfig.from_json(subnet))
        raise ConfigError(
            f"unknown subnet {quoted(subnet)}: give one of {', '.join([*recorded][:20])}, or JSON "
            f"such as {self.min.to_json()}"
        )

    def random(self, rng: Random, alike: float = 0.0) -> SubnetConfig:
        """A random subnet: the depth uniform, then the layers, then each choice.

        Args:
            rng: that draws.
            alike: probability that one choice of each dimension is drawn for all layers. Drawn
                layer by layer, layers of deep subnets are practically never all alike.
        """
        depth = rng.randint(self.min_layers, self.n_layers)
        layers = self._random_layers(range(self.n_layers), depth, rng)
        draws = 1 if alike and rng.random() < alike else depth
        return SubnetConfig(
            layers,
            **{
                key: [rng.choice(values) for _ in range(draws)] * (depth // draws)
                for key, values in self.choices
            },
        )

    def evenly_spaced(self, n: int) -> list[SubnetConfig]:
        """``n`` subnets from min to max, depth and choices growing together.

        Raises:
            ConfigError: if ``n`` is below 2.
        """
        if n < 2:
            raise ConfigError(f"evenly spaced subnets run from min to max: ask for 2, not {n}")
        configs = []
        for i in range(n):
            part = i / (n - 1)
            depth = round(self.min_layers + part * (self.n_layers - self.min_layers))
            choices = {key: _graded(values, part, depth) for key, values in self.choices}
            configs.append(SubnetConfig(self._canonical_layers(depth), **choices))
        return configs

    def neighbours(self, config: SubnetConfig) -> list[SubnetConfig]:
        """All subnets one step away: a choice up or down, one layer more or less, or another layer
        in the place of one."""
        config = self.check(config)
        chosen, found = dict(config.choices), []
        for key, values in self.choices:
            for i, choice in enumerate(chosen[key]):
                at = values.index(choice)
                for other in values[max(0, at - 1) : at] + values[at + 1 : at + 2]:
                    changed = (*chosen[key][:i], other, *chosen[key][i + 1 :])
                    found.append(SubnetConfig(config.layers, **{**chosen, key: changed}))
        for depth in range(len(config.layers) - 1, len(config.layers) + 2):
            if depth in self._depths():
                found.extend(
                    SubnetConfig(layers, **_moved(config, layers))
                    for layers in self._layer_steps(config.layers, depth)
                    if layers != config.layers
                )
        return found

    def mutate(self, config: SubnetConfig, rng: Random, rate: float = 0.1) -> SubnetConfig:
        """Redraws the depth, and each choice, with probability ``rate``; a layer gives way to
        another where the depth stays. Always changes something where the space has more than one
        subnet."""
        config = self.check(config)
        layers = config.layers
        if rng.random() < rate:
            depth = rng.randint(self.min_layers, self.n_layers)
            steps = self._layer_steps(layers, depth) if depth == len(layers) else []
            layers = rng.choice(steps) if steps else self._random_layers(layers, depth, rng)
        kept = _moved(config, layers)
        choices = {
            key: [rng.choice(values) if rng.random() < rate else kept_ for kept_ in kept[key]]
            for key, values in self.choices
        }
        mutant = SubnetConfig(layers, **choices)
        if mutant == config and (neighbours := self.neighbours(config)):
            return rng.choice(neighbours)
        return mutant

    def crossover(self, a: SubnetConfig, b: SubnetConfig, rng: Random) -> SubnetConfig:
        """A child with the depth of one parent, layers and choices from either."""
        parents = [self.check(parent) for parent in (a, b)]
        depth = rng.choice([len(parent.layers) for parent in parents])
        layers = self._random_layers(sorted({*a.layers, *b.layers}), depth, rng)
        inherited = [dict(parent.active()) for parent in parents]
        choices = {
            key: [rng.choice([of[i][key] for of in inherited if i in of] or values) for i in layers]
            for key, values in self.choices
        }
        return SubnetConfig(layers, **choices)

    def _depths(self) -> range:
        return range(self.min_layers, self.n_layers + 1)

    def _uniform(self, depth: int, choice: Sequence[int]) -> SubnetConfig:
        keys = [key for key, _ in self.choices]
        return SubnetConfig(
            self._canonical_layers(depth),
            **{key: [value] * depth for key, value in zip(keys, choice, strict=True)},
        )

    def _canonical_layers(self, depth: int) -> tuple[int, ...]:
        """The layers of a subnet of this depth where the drop rule leaves no choice (and, where
        it does, of the min and the evenly spaced subnets)."""
        if self.layer_drop == "top":
            return tuple(range(depth))
        return _spread(depth, self.n_layers)

    def _random_layers(self, preferred: Sequence[int], depth: int, rng: Random) -> tuple[int, ...]:
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
        missing = [i for i in range(self.n_layers) if i not in layers]
        less = [tuple(x for x in layers if x != drop) for drop in layers]
        if depth < len(layers):
            return less
        fewer = less if depth == len(layers) else [layers]
        return [tuple(sorted((*kept, i))) for kept in fewer for i in missing]


def _graded(values: Sequence[int], part: float, depth: int) -> list[int]:
    """A choice a layer whose mean lies at this part of the way from the smallest to the largest;
    one between two choices is met by giving some layers the larger one."""
    base, larger = divmod(round(part * (len(values) - 1) * depth), depth)
    graded = [values[base]] * depth
    for i in _spread(larger, depth):
        graded[i] = values[base + 1]
    return graded


def _spread(count: int, total: int) -> tuple[int, ...]:
    """``count`` of ``range(total)``, evenly spread, first and last included where count > 1."""
    if count == 1:
        return (total // 2,)
    return tuple(round(i * (total - 1) / (count - 1)) for i in range(count))


def _moved(config: SubnetConfig, layers: Sequence[int]) -> dict[str, list[int]]:
    """Known choices, and those of the nearest known layer for a new one."""
    of_layer = dict(config.active())
    nearest = [min(of_layer, key=lambda j: (abs(j - i), j)) for i in layers]
    return {key: [of_layer[j][key] for j in nearest] for key, _ in config.choices}
