"""Checks of plain data (parsed JSON, a recipe's settings): type, range and keys, before any use.

A check is a function of a value and of the value's place, e.g. ``features.n_mels``. It returns
nothing and raises :class:`ConfigError` with one line that names the place. What it quotes of the
value is escaped and short.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from todm_sb.utils.errors import ConfigError

Check = Callable[[Any, str], None]


def integer(low: int, high: int) -> Check:
    """An integer in ``low..high``; neither a bool nor ``1.0``."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(where, f"an integer in {low}..{high}", value)

    return check


def number(low: float, high: float) -> Check:
    """A finite integer or float in ``low..high``, which may be infinite."""
    wanted = f"a number in {low:g}..{high:g}" if high < math.inf else f"a number from {low:g} on"

    def check(value: Any, where: str) -> None:
        if not (_is_finite(value) and low <= value <= high):
            raise _wrong(where, wanted, value)

    return check


def positive(value: Any, where: str) -> None:
    """A finite integer or float above 0."""
    if not (_is_finite(value) and value > 0):
        raise _wrong(where, "a number above 0", value)


def positive_or_infinite(value: Any, where: str) -> None:
    """A number above 0; no limit where it is infinite."""
    if value != math.inf:
        positive(value, where)


def anything(value: Any, where: str) -> None:
    """Whatever it is."""


def flag(value: Any, where: str) -> None:
    """True or false."""
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


def text(pattern: str, meaning: str = "") -> Check:
    """A string that the pattern matches from end to end; the meaning says so in words."""

    def check(value: Any, where: str) -> None:
        if type(value) is not str or not re.fullmatch(pattern, value):
            raise _wrong(where, meaning or f"text like {pattern}", value)

    return check


def one_of(*choices: Any) -> Check:
    """One of some constants."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(c) and value == c for c in choices):
            raise _wrong(where, " or ".join(map(repr, choices)), value)

    return check


def nullable(inner: Check) -> Check:
    """None, or what ``inner`` accepts."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def either(*checks: Check) -> Check:
    """What any of some checks accepts; the last one tells what was wanted."""

    def check(value: Any, where: str) -> None:
        *others, last = checks
        for other in others:
            with suppress(ConfigError):
                return other(value, where)
        return last(value, where)

    return check


def sequence(item: Check, shortest: int, longest: int) -> Check:
    """A list of ``shortest..longest`` items that ``item`` accepts."""

    def check(value: Any, where: str) -> None:
        if type(value) not in (list, tuple) or not shortest <= len(value) <= longest:
            raise _wrong(where, f"a list of {shortest}..{longest} items", value)
        for i, x in enumerate(value):
            item(x, f"{where}[{i}]")

    return check


def mapping(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """A mapping with these keys and no others."""
    known = {**required, **(optional or {})}

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise _wrong(where, "a mapping", value)
        for key in value:
            if key not in known:
                raise ConfigError(f"{where}: unknown key {reprlib.repr(key)}")
        for key in required:
            if key not in value:
                raise ConfigError(f"{where}: key {key!r} is missing")
        for key, x in value.items():
            known[key](x, f"{where}.{key}")

    return check


def table(key: Check, item: Check, longest: int) -> Check:
    """A mapping of at most ``longest`` free keys."""

    def check(value: Any, where: str) -> None:
        if type(value) is not dict or len(value) > longest:
            raise _wrong(where, f"a mapping of up to {longest} entries", value)
        for k, x in value.items():
            key(k, f"a key of {where}")
            item(x, f"{where}.{k}")

    return check


def parse_json(data: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN or infinity, no key twice.

    Raises:
        ConfigError: if the data is anything else, or nested beyond reason.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_not_a_number
        )
    except RecursionError:
        raise ConfigError("not usable JSON: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"not usable JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        raise ValueError("a key is there twice")
    return data


def _not_a_number(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float holds; 10**400 is none."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _wrong(where: str, wanted: str, value: Any) -> ConfigError:
    try:
        shown = reprlib.repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        shown = "a longer one"
    return ConfigError(f"{where} must be {wanted}, not {shown}")
