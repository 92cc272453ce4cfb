"""Numbers and paths on a command line, as types of argparse."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from todm_sb.utils.errors import ConfigError

T = TypeVar("T")


def at_least(least: int) -> Callable[[str], int]:
    """The type of whole numbers from ``least`` on."""

    def whole_number(text: str) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        return number

    return whole_number


def positive(text: str) -> float:
    """A finite number above 0.

    Raises:
        argparse.ArgumentTypeError: if it is another.
    """
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


def several(of: Callable[[str], T]) -> Callable[[str], list[T]]:
    """The type of lists with commas between their entries, of which none is there twice.

    Args:
        of: the type of an entry.
    """

    def comma_separated(text: str) -> list[T]:
        found = [of(part) for part in text.split(",")]
        if twice := [x for i, x in enumerate(found) if x in found[:i]]:
            raise argparse.ArgumentTypeError(f"{twice[0]} is twice there")
        return found

    return comma_separated


def beside_a_recipe(command: str, description: str) -> argparse.ArgumentParser:
    """A parser of what a subcommand takes besides the keys of a recipe's YAML, which it names as
    ``hparams``: ``parse_known_args`` tells both apart.

    Args:
        command: name of the subcommand.
        description: for its help, as it is written.
    """
    parser = argparse.ArgumentParser(
        prog=f"todm-sb {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # it may be the beginning of a key
    )
    parser.add_argument("hparams", type=path, help="YAML of a supernet")
    return parser


def path(text: str) -> Path:
    """A file or folder; in ``--option=~/x`` no shell has replaced the ``~`` by someone's home."""
    return Path(os.path.expanduser(text))


def check_file_place(
    file: Path, option: str = "", is_own: Callable[[Path], bool] | None = None
) -> None:
    """Checks that a file can be written, before there is anything to write.

    Args:
        file: which may be there already.
        option: that names it, with a space after it, for the message.
        is_own: whether a file that is there is one of those that the same command writes, and may
            be replaced; None if any may.

    Raises:
        ConfigError: if it is a folder, would be in one that is not there, or is somebody's.
    """
    if file.is_dir() or not file.resolve().parent.is_dir():
        raise ConfigError(
            f"{option}{file} is no place for a file: name one in a folder that is there"
        )
    if is_own and file.exists() and not (file.is_file() and is_own(file)):
        raise ConfigError(
            f"{option}{file} was not written by this command: move it away, or name another file"
        )


def check_given_with(arguments: argparse.Namespace, partner: str, *options: str) -> None:
    """Checks that options are not given without the one that they are of.

    Args:
        arguments: None, or False, for what was not given.
        partner: that one, with the name of its value, if it has one: ``--budget COST``.
        options: the others.

    Raises:
        ConfigError: if one is given without it.
    """
    if given(arguments, partner.partition(" ")[0]):
        return
    for option in filter(lambda option: given(arguments, option), options):
        raise ConfigError(f"{option} is of {partner}: add that one, or leave this one out")


def given(arguments: argparse.Namespace, option: str) -> bool:
    """Whether an option was given: what it leaves is neither None nor False."""
    return getattr(arguments, option[2:].replace("-", "_")) not in (None, False)
