"""Errors a user can cause: one clear line each."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

# Seconds that processes which torchrun started leave the first to say what is wrong with all. It
# ends them as soon as the first has ended.
FIRST_SAYS = 20


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


def quoted(value: Any, longest: int = 200) -> str:
    """How a message quotes a value, whatever it is: in one line, escaped, and not too long."""
    text = ascii(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


@contextmanager
def recipe_errors(hparams_file: str | Path) -> Iterator[None]:
    """Turns whatever goes wrong while a recipe's YAML is loaded into one line that names the file.

    Args:
        hparams_file: the recipe.

    Raises:
        ConfigError: in place of any error within the block, which stays its cause.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{hparams_file} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # The message of a KeyError is in quotes.
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        wanted = re.search(r"'(\w+)' is a !PLACEHOLDER", str(reason))
        hint = f" Give it as --{wanted[1]}=..." if wanted else ""
        line = " ".join(str(reason).split()) or type(error).__name__
        if line.startswith(f"{hparams_file}: "):  # from a block within
            raise
        raise ConfigError(f"{hparams_file}: {line[:500]}{hint}") from error


@contextmanager
def written_by(command: str, path: str | Path) -> Iterator[None]:
    """Turns what goes wrong while the content of a file is made use of into one line that names it.

    Args:
        command: that writes such files.
        path: of the file.

    Raises:
        ConfigError: where the content is not what that command writes.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        if str(error).startswith(str(path)):  # from a block within
            raise
        raise ConfigError(
            f"{path} was not written by {command}, or is damaged: {error!r}"
        ) from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends a script with the message alone, and exit status 2, when the user can mend the cause,
    what the operating system refuses among them; on Ctrl-C with one word, and then, as where
    nobody reads on, with the status that shells expect. What goes to a stream that was closed from
    the start goes nowhere."""
    _open_closed_streams()
    try:
        yield
    except TODMError as error:
        _end_with(str(error))
    except BrokenPipeError:
        # Whoever read the output has enough of it; nor is there anyone to flush it to at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        reason = error.strerror or error
        where = f"{error.filename}: " if error.filename else ""
        _end_with(f"{where}{reason}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _open_closed_streams() -> None:
    """Of a closed stderr, ``print`` writes to stdout."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115


def _end_with(message: str) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        time.sleep(FIRST_SAYS)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
