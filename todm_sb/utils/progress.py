"""Progress bars, where somebody sees them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

try:
    from tqdm import tqdm
except ModuleNotFoundError:  # on a device, where nobody watches
    tqdm = None


def bar(iterable: Iterable | None = None, *, show: bool = True, **options: Any) -> Any:
    """A tqdm bar on a terminal; in a log, which would get thousands of them, none.

    Args:
        iterable: what to go through, if anything.
        show: False for none on a terminal either.
        options: tqdm's.
    """
    if tqdm is None:
        return iterable
    return tqdm(iterable, disable=not (show and watched()), **options)


def say(text: str, file: TextIO) -> None:
    """Writes a text at once, above the bars.

    Args:
        text: with its line ends.
        file: stdout or stderr.
    """
    if tqdm is None:
        file.write(text)
    else:
        tqdm.write(text, file=file, end="")
    file.flush()


def watched() -> bool:
    """Whether stderr, where the bars go, is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
