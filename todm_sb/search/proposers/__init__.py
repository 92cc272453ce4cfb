"""Search algorithms by name: which subnet to evaluate next."""

from __future__ import annotations

import importlib

from todm_sb.search.proposers.protocol import Proposer, Task
from todm_sb.utils.errors import ConfigError, quoted

__all__ = ["ALGORITHMS", "Proposer", "Task", "proposer_class"]

# Where the class of each is.
ALGORITHMS = {
    "nsga2": "todm_sb.search.proposers.nsga2.NSGA2",
    "random": "todm_sb.search.proposers.random_search.RandomSearch",
    "local": "todm_sb.search.proposers.local_search.LocalSearch",
}


def proposer_class(algorithm: str) -> type[Proposer]:
    """The class of a search algorithm.

    Args:
        algorithm: one of :data:`ALGORITHMS`, or ``module.Class`` of one's own.

    Raises:
        ConfigError: if there is none of that name.
    """
    module, _, name = ALGORITHMS.get(algorithm, algorithm).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"no search algorithm {quoted(algorithm)} ({error}): give one of "
            f"{', '.join(ALGORITHMS)}, or the module.Class of your own"
        ) from None
