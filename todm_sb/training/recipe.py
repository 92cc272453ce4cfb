"""A recipe's YAML under overrides: resolved and loaded, each text in it exactly as it was given.

hyperpyyaml reads a text that a reference puts into another once more: as a reference (``<x>``), as
arithmetic (``5 #x``), as YAML (``(1)``, a tuple). So a text travels through it as a token, and is
put back when it is made an object of Python's. What is text: whatever is in double quotes, in the
recipe or in an override.
"""

from __future__ import annotations

import copy
import io
import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, TaggedScalar
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.utils.errors import ConfigError, quoted, recipe_errors

# Keys of files and folders: a leading ~ is someone's home.
PATHS = re.compile(r"(.*_)?(folder|csvs?|file|dir|path)|manifests")

# The recipe, relative to this one's folder, that one is like but for what it says itself.
BASE = "base"

# The recipe that a run was trained with, in its folder.
RECIPE = "hyperparams.yaml"

# Stands for a value that a tag makes, which is no plain setting.
TAGGED = object()


@dataclass(frozen=True)
class Recipe:
    """A recipe and what overrides it. Its file is read once: what is made of a recipe is of one
    state of its file.

    Args:
        file: the YAML; its key ``base`` may name another that it differs from only in what it says.
        overrides: by key; a :class:`Text` is what it says, whatever YAML would make of it.
    """

    file: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def text(self, whole_paths: bool = False) -> str:
        """The YAML with overrides applied and references resolved.

        Args:
            whole_paths: files and folders, and what lies below them, are absolute, as in
                ``hyperparams.yaml``.

        Raises:
            ConfigError: if the file cannot be read, a placeholder has no value, or an override
                does not fit.
        """
        with recipe_errors(self.file):
            texts, resolved = self._resolved
            tree = texts.shown(yaml_of().load(resolved))
            return dump(_with_whole_paths(tree) if whole_paths else tree)

    def settings(self) -> dict[str, Any]:
        """The plain values by key, nothing built; :data:`TAGGED` for what a tag would make.

        Raises:
            ConfigError: as of :meth:`text`.
        """
        with recipe_errors(self.file):
            texts, resolved = self._resolved
            loader = texts.loader()
            # In place of those that hyperpyyaml leaves on the class of all loaders.
            loader.yaml_multi_constructors = {"!": lambda *_: TAGGED}
            return yaml.load(resolved, Loader=loader)

    def load(self) -> dict[str, Any]:
        """Everything, built: the hparams.

        Raises:
            ConfigError: as of :meth:`text`, or if an object refuses its arguments.
        """
        with recipe_errors(self.file):
            texts, resolved = self._resolved
            return load_hyperpyyaml(resolved, loader=texts.loader())

    def tree(self) -> CommentedMap:
        """The YAML with overrides applied, references in it as they are.

        Raises:
            ConfigError: if the file cannot be read, or an override does not fit.
        """
        with recipe_errors(self.file):
            tree = copy.deepcopy(self._written)
            for key, value in copy.deepcopy(dict(self.overrides)).items():
                if key not in tree:
                    raise ConfigError(f"has no key {quoted(key)}")
                update(tree, {key: value})
            for key, value in tree.items():
                if isinstance(value, str) and PATHS.fullmatch(key):
                    tree[key] = Text(os.path.expanduser(value))
            return tree

    @cached_property
    def _written(self) -> CommentedMap:
        return _with_base(self.file)

    @cached_property
    def _resolved(self) -> tuple[_Texts, str]:
        """The YAML with tokens in place of its texts, and the texts."""
        texts = _Texts()
        stream = io.StringIO(dump(texts.hidden(self.tree())))
        stream.name = str(self.file)  # by which !include: finds its files
        return texts, resolve_references(stream).getvalue()


def _with_whole_paths(tree: CommentedMap) -> CommentedMap:
    """The tree, its files and folders absolute, and texts that lie below one of these. A name
    without a folder may be that of a path by chance: it counts below keys of paths alone."""
    named = [value for key, value in tree.items() if _is_path(key, value)]
    given = [x for value in named for x in (value if isinstance(value, list) else [value])]
    paths = [path for x in given if isinstance(x, str) and (path := x.rstrip(os.sep))]
    every = tuple(f"{path}{os.sep}" for path in paths)
    sure = tuple(f"{path}{os.sep}" for path in paths if os.sep in path)

    def whole(node: Any, known: tuple[str, ...]) -> Any:
        if isinstance(node, str) and f"{node}{os.sep}".startswith(known):
            return Text(os.path.abspath(node))
        if isinstance(node, dict):
            for key, value in list(node.items()):
                node[key] = whole(value, every if _is_path(key, value) else sure)
        elif isinstance(node, list):
            for i, value in enumerate(node):
                node[i] = whole(value, known)
        return node

    return whole(tree, sure)


def _is_path(key: Any, value: Any) -> bool:
    """Whether a key's value is a file or folder, or a list of such, and not what a tag makes."""
    return PATHS.fullmatch(str(key)) is not None and not tag_of(value)


def _with_base(file: Path, above: tuple[Path, ...] = ()) -> CommentedMap:
    """The YAML of a recipe; where it has a ``base``, that of the base, changed by what it says
    itself: mappings key by key, all else replaced."""
    if file.resolve() in above:
        raise ConfigError(f"{file} has itself as its {BASE}")
    tree = yaml_of().load(file.read_text(encoding="utf-8"))
    if not isinstance(tree, CommentedMap):
        raise ConfigError(f"{file} is no recipe: its YAML is no mapping")
    base = tree.pop(BASE, None)
    if base is None:
        return tree
    whole = _with_base(file.parent / str(base), (*above, file.resolve()))
    update(whole, tree)
    return whole


def load_text(text: str, source: str | Path) -> dict[str, Any]:
    """The hparams of what :meth:`Recipe.text` gave.

    Args:
        text: with references resolved.
        source: the file that a message names.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    with recipe_errors(source):
        texts = _Texts()
        tree = texts.hidden(yaml_of().load(text))
        return load_hyperpyyaml(dump(tree), loader=texts.loader())


def update(tree: MutableMapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Applies overrides: mappings key by key; all else, another tag or nothing, ``{}``, too,
    replaces what was there, as anything replaces null.

    Args:
        tree: is changed.
        overrides: of it.

    Raises:
        ConfigError: if a mapping is to change what is none.
    """
    for key, value in overrides.items():
        old, tag = tree.get(key), tag_of(value)
        another = tag != tag_of(old) if tag else not (value or tag_of(old))
        if not isinstance(value, dict) or old is None or another:
            tree[key] = value
        elif isinstance(old, dict):
            update(old, value)
        else:
            raise ConfigError(
                f"{key}: the mapping {quoted(dict(value))} cannot be combined with {quoted(old)}, "
                "which is none"
            )


def tag_of(node: Any) -> str:
    """The tag of a node of ruamel's tree, such as ``!new:...``; nothing where it has none."""
    return str(getattr(getattr(node, "tag", None), "value", None) or "")


def yaml_of() -> YAML:
    """A YAML that keeps tags, references and quotes."""
    kept = YAML()
    kept.preserve_quotes = True
    kept.width = 2**31  # long texts stay in one line
    return kept


def dump(tree: Any) -> str:
    """A tree of :func:`yaml_of` as text."""
    stream = io.StringIO()
    yaml_of().dump(tree, stream)
    return stream.getvalue()


def replace_strings(
    node: Any, change: Callable[[str], str], seen: dict[int, Any] | None = None
) -> Any:
    """The tree of :func:`yaml_of` with its strings changed; keys stay.

    Args:
        node: the tree, which is changed.
        change: what becomes of a string.
        seen: nodes that need no second change, by id: what an alias names is there twice.
    """
    seen = {} if seen is None else seen
    if isinstance(node, str):
        return change(node)
    if isinstance(node, dict | list) and id(node) not in seen:
        seen[id(node)] = node
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            node[key] = replace_strings(value, change, seen)
    return node


class _Texts:
    """Texts and the tokens that they travel as."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def hidden(self, node: Any) -> Any:
        """The tree, a token in place of each text."""
        return replace_strings(node, self._token)

    def shown(self, node: Any) -> Any:
        """The tree, each text in the place of its token, as texts."""

        def show(value: str) -> str:
            shown = self.show(value)
            return value if shown == value else Text(shown)

        return replace_strings(node, show)

    def show(self, value: str) -> str:
        """A string with the texts in place of their tokens."""
        return re.sub(r"TEXT_(\d+)_OF_RECIPE", lambda found: self.texts[int(found[1])], value)

    def loader(self) -> type[ruamel.yaml.Loader]:
        """A loader that shows the texts."""
        show = self.show

        class Loader(ruamel.yaml.Loader):
            def construct_scalar(self, node: Any) -> Any:
                value = super().construct_scalar(node)
                return show(value) if isinstance(value, str) else value

        return Loader

    def _token(self, value: str) -> str:
        if not isinstance(value, Text):
            return value
        self.texts.append(str(value))
        return f"TEXT_{len(self.texts) - 1}_OF_RECIPE"


def is_placeholder(node: Any) -> bool:
    """Whether a recipe wants a value here."""
    return isinstance(node, TaggedScalar) and tag_of(node) == "!PLACEHOLDER"
