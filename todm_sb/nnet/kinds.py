"""Parts of a network that are chosen by ``kind``: one recipe serves several kinds."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from todm_sb.utils.errors import ConfigError, quoted

logger = logging.getLogger(__name__)


def arguments_of(build: Callable[..., Any]) -> set[str]:
    """Names of what a part is built with."""
    return set(inspect.signature(build).parameters)


def own_arguments(
    part: str, kind: str, options: Mapping[str, Any], kinds: Mapping[str, Callable[..., Any]]
) -> dict[str, Any]:
    """The options that a kind has; those of another kind are left out, with one line in the log.

    Args:
        part: what is chosen, for messages.
        kind: the chosen one.
        options: by name.
        kinds: what builds each kind.

    Raises:
        ConfigError: on an option that no kind has.
    """
    own = arguments_of(kinds[kind])
    known = own.union(*map(arguments_of, kinds.values()))
    strange = sorted(options.keys() - own)
    if unknown := [name for name in strange if name not in known]:
        raise ConfigError(f"{part}: {kind} has no {quoted(unknown[0])}")
    if strange:
        # Mostly of the recipe that this one is like; no fault.
        logger.info("%s: %s has no %s; left out", part, kind, ", ".join(strange))
    return {name: value for name, value in options.items() if name in own}
