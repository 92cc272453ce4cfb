"""The command line of a recipe: ``train.py recipe.yaml --key=value ... --device=cpu``.

SpeechBrain makes one YAML of all overrides by joining strings, so that ``--output_folder="run #2"``
is the folder ``run``. Here what a key is in the recipe decides how its value is read: a text (a
path, a name) is taken as it is, all else is YAML.
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from speechbrain.utils.run_opts import RunOptions

from todm_sb.training.recipe import Recipe, is_placeholder, yaml_of
from todm_sb.training.settings import OPTIONAL
from todm_sb.utils.errors import ConfigError, quoted


def parse_arguments(argv: Sequence[str]) -> tuple[Recipe, RunOptions]:
    """Reads a command line.

    Args:
        argv: the recipe's file, then overrides of its keys and options of SpeechBrain, each as
            ``--key=value`` or ``--key value``; what is true or false needs no value to be true.

    Returns:
        The recipe with its overrides, and the options.

    Raises:
        ConfigError: on an argument that is not understood, naming what may have been meant; a key
            given twice; or a value that is no YAML where it has to be.
        SystemExit: after ``--help``.
    """
    given, others = _run_options(argv)
    recipe = Recipe(Path(given["param_file"]))
    # A placeholder is a folder or another text that the user has to name.
    named = {key: Text("?") for key, node in recipe.tree().items() if is_placeholder(node)}
    present = Recipe(recipe.file, named).settings()
    overrides = CommentedMap()
    for key, text in _pairs(others, present):
        if key not in present:
            known = [*present, *(option.name for option in fields(RunOptions))]
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; do you mean --{near[0]}?" if near else ""
            raise ConfigError(f"{recipe.file} has no key {quoted(key)}{hint}")
        overrides[key] = value_of(key, text, present[key])
    options = {key: value for key, value in given.items() if key != "param_file"}
    return Recipe(recipe.file, overrides), RunOptions(**given, overridden_args=set(options))


def run_option_arguments(options: RunOptions) -> list[str]:
    """Those options that were given, as arguments again."""
    arguments = []
    for name in sorted(options.overridden_args):
        value = getattr(options, name)
        if isinstance(value, list):
            arguments += [f"--{name}", *value]
        else:
            arguments.append(f"--{name}" if value is True else f"--{name}={value}")
    return arguments


def value_of(key: str, text: str | None, present: Any) -> Any:
    """What an argument's text says.

    Args:
        key: of the recipe.
        text: the argument; None where none was given.
        present: what the recipe has now. Where it is a string, the text is taken as it is, and in
            a list of strings each item; where it is null, so is what is no other YAML, but for
            the values of a setting that no text can be.

    Raises:
        ConfigError: if there is no text where one is needed, or it is not YAML.
    """
    if text is None:
        if isinstance(present, bool):
            return True
        raise ConfigError(f"--{key} needs a value: --{key}=...")
    if isinstance(present, str):
        return _text(key, text)
    try:
        value, node = yaml_of().load(text), yaml_of().compose(text)
    except (YAMLError, ValueError) as error:  # the latter of integers of thousands of digits
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"--{key}={quoted(text)} is not usable YAML: {reason}") from None
    if isinstance(node, SequenceNode) and _holds_texts(present):
        return CommentedSeq(
            _text(key, item.value) if _is_plain(item) else x
            for item, x in zip(node.value, value, strict=True)
        )
    if present is None and value is not None and _is_plain(node):
        return value if _is_no_text(key, value) else _text(key, text)
    if type(present) in (int, float) and isinstance(value, str):
        return _number(value)
    return value


def _run_options(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """SpeechBrain's options that are given, by name, and the arguments that are none of them."""
    parser = RunOptions._create_parser()
    parser.allow_abbrev = False  # --dev is no --device
    parser.error = _refuse
    for action in parser._actions:
        action.default = argparse.SUPPRESS
        if action.dest == "optimizer_step_limit":
            action.type = int  # SpeechBrain leaves it a string
        if action.dest == "grad_accumulation_factor":
            action.type = _integer_or_text  # it may be auto
    known = {option for action in parser._actions for option in action.option_strings}
    _refuse_twice(name for name in (a.partition("=")[0] for a in argv) if name in known)
    given, others = parser.parse_known_args(list(argv))
    return vars(given), others


def _refuse(message: str) -> NoReturn:
    needs_file = "param_file" in message
    raise ConfigError("name the recipe's YAML, e.g. hparams/mini.yaml" if needs_file else message)


def _refuse_twice(names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{name} is given twice")
        seen.add(name)


def _pairs(arguments: Sequence[str], known: Iterable[str]) -> list[tuple[str, str | None]]:
    """Keys and their texts; None for a key without one."""
    pairs: list[tuple[str, str | None]] = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if name.startswith("--") and name != "--":
            pairs.append((name[2:], text if equals else None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], argument)
        else:
            raise ConfigError(
                f"argument {quoted(argument)} is not understood: overrides are --key=value"
            )
    _refuse_twice(f"--{key}" for key, _ in pairs)
    return pairs


def _text(key: str, text: str) -> Text:
    if not text:
        raise ConfigError(f"--{key} must not be empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"--{key}={quoted(text)} is not UTF-8") from None
    return Text(text)


def _is_plain(node: Any) -> bool:
    """Whether a node is a scalar that is not tagged."""
    return isinstance(node, ScalarNode) and not str(node.tag).startswith("!")


def _is_no_text(key: str, value: Any) -> bool:
    """Whether a setting can be this number, say, and cannot be a text."""

    def can_be(wanted: Any) -> bool:
        try:
            OPTIONAL[key](wanted, key)
        except ConfigError:
            return False
        return True

    return key in OPTIONAL and can_be(value) and not can_be(str(value))


def _holds_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def _integer_or_text(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _number(text: str) -> float | str:
    """A number that Python reads and YAML does not, such as ``1.e-3`` or ``inf``."""
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isnan(number) else number
