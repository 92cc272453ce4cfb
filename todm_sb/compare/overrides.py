"""Overrides of a recipe's YAML: merged, written as arguments, and flattened to tell runs apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from hyperpyyaml import resolve_references
from hyperpyyaml.core import recursive_update
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from todm_sb.errors import ConfigError


def as_yaml(overrides: Mapping[str, str]) -> str:
    """Values that are YAML already, as one text."""
    return "\n".join(f"{key}: {value}" for key, value in overrides.items())


def quoted(value: str | Path) -> str:
    """A string as a YAML value."""
    return json.dumps(str(value), ensure_ascii=False)


def merge(*texts: str) -> CommentedMap:
    """Merges overrides as hyperpyyaml merges one with a recipe: mappings key by key, later ones
    first; all else is replaced.

    Args:
        texts: YAML, as ``speechbrain.parse_arguments`` returns it.

    Raises:
        ConfigError: if one has a mapping where an earlier one has none.
    """
    merged = CommentedMap()
    for text in texts:
        overrides = YAML().load(text) or {}
        try:
            recursive_update(merged, overrides)
        except TypeError:
            raise ConfigError(
                f"overrides {dict(overrides)} cannot be combined with {dict(merged)}: "
                "a mapping on one side is none on the other"
            ) from None
    return merged


def as_text(overrides: CommentedMap) -> str:
    """The same as YAML."""
    stream = StringIO()
    YAML().dump(overrides, stream)
    return stream.getvalue()


def as_arguments(overrides: CommentedMap) -> list[str]:
    """The same as arguments of ``train.py``, one a key."""
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = 2**31  # an argument is one line
    arguments = []
    for key, value in overrides.items():
        stream = StringIO()
        yaml.dump({key: value}, stream)  # "{key: value}\n"
        arguments.append(f"--{key}={stream.getvalue().rstrip()[len(key) + 3 : -1]}")
    return arguments


def resolved_options(hparams_file: Path, overrides: CommentedMap) -> dict[str, str]:
    """Every value of a recipe under overrides, references resolved, by its dotted key.

    Comments and layout of the file make no difference.

    Raises:
        ConfigError: if the file is missing, or the overrides do not fit it.
    """
    try:
        with hparams_file.open(encoding="utf-8") as file:
            text = resolve_references(file, as_text(overrides)).getvalue()
    except OSError as error:
        raise ConfigError(f"{hparams_file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{hparams_file}: {error.args[0]} {error.args[1:]}") from None
    return dict(_flatten(YAML().compose(text), "", set()))


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
