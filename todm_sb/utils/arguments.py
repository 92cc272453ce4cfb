"""Numbers and paths on a command line, as types of argparse."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path


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


def path(text: str) -> Path:
    """A file or folder; in ``--option=~/x`` no shell has replaced the ``~`` by someone's home."""
    return Path(os.path.expanduser(text))
