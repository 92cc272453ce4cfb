"""Errors a user can cause: one clear line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class TODMError(ValueError):
    """Something the user can mend; the message names the thing and the mend."""


class ConfigError(TODMError):
    """A setting does not make sense."""


class DataError(TODMError):
    """A corpus is not as it should be."""


class CheckpointError(TODMError):
    """A checkpoint cannot be written or used."""


class TrainingError(TODMError):
    """Training cannot go on."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends a script with the message alone, and exit status 2, when the user can mend the cause."""
    try:
        yield
    except TODMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
