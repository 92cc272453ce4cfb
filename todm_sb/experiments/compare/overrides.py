"""Overrides of a recipe's YAML: merged, written as arguments, and flattened to tell runs apart."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.training.recipe import Recipe, update, yaml_of


def merge(*parts: Mapping[str, Any]) -> CommentedMap:
    """Merges overrides as they are merged with a recipe: mappings key by key, later ones first; all
    else is replaced.

    Args:
        parts: as of :class:`todm_sb.training.recipe.Recipe`.

    Raises:
        ConfigError: if one has a mapping where an earlier one has none.
    """
    merged = CommentedMap()
    for part in parts:
        update(merged, copy.deepcopy(dict(part)))
    return merged


def from_yaml(values: Mapping[str, str]) -> CommentedMap:
    """Overrides from values that are YAML, by key."""
    return CommentedMap({key: yaml_of().load(value) for key, value in values.items()})


def as_arguments(overrides: Mapping[str, Any]) -> list[str]:
    """The same as arguments of ``train.py``, one a key."""
    yaml = yaml_of()
    yaml.default_flow_style = True
    arguments = []
    for key, value in overrides.items():
        if isinstance(value, Text):
            arguments.append(f"--{key}={value}")
            continue
        stream = StringIO()
        yaml.dump({key: value}, stream)  # "{key: value}\n"
        arguments.append(f"--{key}={stream.getvalue().rstrip()[len(key) + 3 : -1]}")
    return arguments


def resolved_options(recipe: Recipe) -> dict[str, str]:
    """Every value of a recipe, references resolved, by its dotted key.

    Comments and layout of the file make no difference.

    Raises:
        ConfigError: if the file is missing, or the overrides do not fit it.
    """
    return dict(_flatten(yaml_of().compose(recipe.text()), "", set()))


def _flatten(node: Node, key: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Leaves and tags by their keys; what several keys refer to, by the first of them alone."""
    if id(node) in seen:
        return
    tag = str(node.tag) if str(node.tag).startswith("!") else ""
    if isinstance(node, MappingNode):
        children: list[tuple[Any, Node]] = [(name.value, value) for name, value in node.value]
    elif isinstance(node, SequenceNode):
        children = list(enumerate(node.value))
    else:
        yield key, f"{tag} {node.value}".strip()
        return
    seen.add(id(node))
    if tag or not children:
        yield key, tag
    for name, child in children:
        yield from _flatten(child, f"{key}.{name}" if key else str(name), seen)
