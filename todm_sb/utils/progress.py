"""Progress bars, where somebody sees them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(iterable: Iterable | None = None, *, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar on a terminal; in a log, which would get thousands of them, none.

    Args:
        iterable: what to go through, if anything.
        show: False for none on a terminal either.
        options: tqdm's.
    """
    return tqdm(iterable, disable=not (show and watched()), **options)


def watched() -> bool:
    """Whether stderr, where the bars go, is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()
