"""Modules of a user's own, by their names."""

from __future__ import annotations

import importlib
from types import ModuleType

from todm_sb.utils.errors import ConfigError, quoted


def import_own(module: str, asked_by: str) -> ModuleType:
    """Imports a module that a setting names.

    Args:
        module: its name.
        asked_by: the setting, for the message.

    Raises:
        ConfigError: with one line, whatever goes wrong within it.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # it is any code
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{asked_by}: module {quoted(module)} cannot be imported "
            f"({type(error).__name__}: {reason}): name its folder in PYTHONPATH, or mend it"
        ) from error
