"""A subnet, as everything but its space and its encoder sees it: an opaque value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from todm_sb.space.dimensions import DIMENSIONS
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.schema import text

LAYERS = "layers"

# The name of a subnet: part of files' names, and of lists with commas.
SUBNET_NAME = text(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", "a name of up to 64 of A-Za-z0-9._+-")


@dataclass(frozen=True, init=False)
class SubnetConfig:
    """A choice of encoder layers and, for each of them, of every elastic dimension.

    Immutable and hashable. A dimension that is left out is at its largest.

    Args:
        layers: indices of the active layers, ascending.
        **choices: by the key of a dimension, the choice of each active layer.

    Raises:
        ConfigError: if they hold other than integers, differ in length or are empty, the layers
            are not ascending, a choice is not positive, or a dimension is not known.
    """

    layers: tuple[int, ...]
    choices: tuple[tuple[str, tuple[int, ...]], ...]

    def __init__(self, /, layers: Sequence[int], **choices: Sequence[int]) -> None:
        layers = integers(f"subnet: {LAYERS}", layers)
        if not layers or any(a >= b for a, b in zip((-1, *layers), layers, strict=False)):
            raise ConfigError(f"subnet: layers must be ascending and >= 0, not {quoted(layers)}")
        known = known_dimensions("subnet", choices)
        for key, values in known.items():
            if len(values) != len(layers):
                raise ConfigError(
                    f"subnet: {len(layers)} layers but {len(values)} {key}: give one a layer"
                )
            if min(values) < 1:
                raise ConfigError(f"subnet: {key} must be positive, not {quoted(values)}")
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "choices", tuple(known.items()))

    @property
    def id(self) -> str:
        """Short and stable over runs and machines, e.g. ``6L-1f3a9c02``."""
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:8]
        return f"{len(self.layers)}L-{digest}"

    @property
    def label(self) -> str:
        """For people: layers and choices, e.g. ``6x384``; the id where they differ by layer."""
        distinct = [set(values) for _, values in self.choices]
        if any(len(values) > 1 for values in distinct):
            return self.id
        return "x".join(map(str, [len(self.layers), *(v for values in distinct for v in values)]))

    def describe(self) -> dict[str, str]:
        """What tables and pages show of it, by heading, e.g. ``{"layers": "3", "FFN": "128 x 3"}``.

        Runs of equal choices are shown as ``choice x layers``.
        """
        shown = {LAYERS: str(len(self.layers))}
        for key, values in self.choices:
            runs = [(value, len([*run])) for value, run in groupby(values)]
            shown[DIMENSIONS[key].label] = ", ".join(f"{value} x {n}" for value, n in runs)
        return shown

    def totals(self) -> dict[str, int]:
        """Its size in numbers: layers, and each dimension by its label, added up over layers."""
        sums = {DIMENSIONS[key].label: sum(values) for key, values in self.choices}
        return {LAYERS: len(self.layers), **sums}

    def __getitem__(self, key: str) -> tuple[int, ...]:
        """The choice of each active layer; KeyError of a dimension that is left out."""
        return dict(self.choices)[key]

    def active(self) -> Iterator[tuple[int, dict[str, int]]]:
        """Each active layer and its choices by key."""
        for at, layer in enumerate(self.layers):
            yield layer, {key: values[at] for key, values in self.choices}

    def to_dict(self) -> dict[str, list[int]]:
        """Plain types, for JSON and YAML."""
        return {LAYERS: [*self.layers], **{key: [*values] for key, values in self.choices}}

    @classmethod
    def from_dict(cls, data: Any) -> SubnetConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            ConfigError: if it is no mapping of ``layers`` and known dimensions.
        """
        if (
            not isinstance(data, dict)
            or LAYERS not in data
            or not all(type(k) is str for k in data)
        ):
            known = " and ".join([LAYERS, *DIMENSIONS])
            raise ConfigError(f"a subnet is a mapping of {known}, not {quoted(data)}")
        return cls(**data)

    @classmethod
    def pick(cls, data: Mapping[str, Any]) -> SubnetConfig:
        """The subnet of a record that holds more than its own keys, such as a measurement."""
        return cls.from_dict({key: data[key] for key in (LAYERS, *DIMENSIONS) if key in data})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, line: str) -> SubnetConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            ConfigError: if the text is no JSON or no subnet.
        """
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not the JSON of a subnet: {quoted(line)} ({error})") from None
        return cls.from_dict(data)


def integers(name: str, values: Any) -> tuple[int, ...]:
    """The values as a tuple.

    Raises:
        ConfigError: if they are no sequence of integers.
    """
    if not isinstance(values, Sequence) or not all(type(value) is int for value in values):
        raise ConfigError(f"{name} must be integers, not {quoted(values)}")
    return tuple(values)


def known_dimensions(of: str, choices: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Choices by dimension, in the order of :data:`DIMENSIONS`.

    Raises:
        ConfigError: on an unknown dimension, or choices that are no integers.
    """
    for key in choices:
        if key not in DIMENSIONS:
            raise ConfigError(f"{of}: unknown key {quoted(key)}; dimensions are {(*DIMENSIONS,)}")
    return {key: integers(f"{of}: {key}", choices[key]) for key in DIMENSIONS if key in choices}
