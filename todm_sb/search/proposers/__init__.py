"""Search algorithms by name: which subnet to evaluate next."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import cast

from todm_sb.search.proposers.protocol import Proposer, Task
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.own_modules import import_own

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
        ConfigError: if there is none of that name, or what is there is no :class:`Proposer`.
    """
    known = f"give one of {', '.join(ALGORITHMS)}, or the module.Class of your own"
    module, _, name = ALGORITHMS.get(algorithm, algorithm).rpartition(".")
    if not module:
        raise ConfigError(f"no search algorithm {quoted(algorithm)}: {known}")
    of = f"search algorithm {quoted(algorithm)}"
    ours = algorithm in ALGORITHMS
    found = getattr(import_module(module) if ours else import_own(module, of), name, None)
    if not inspect.isclass(found):
        raise ConfigError(f"{of}: there is no such class: {known}")
    for needed in ("name", "first", "candidates"):
        if not hasattr(found, needed):
            raise ConfigError(f"{of} lacks {needed}: see todm_sb.search.proposers.Proposer")
    try:
        inspect.signature(found).bind(None)
    except TypeError as error:
        raise ConfigError(f"{of} has to be made of a Task alone: {error}") from None
    return cast(type[Proposer], found)
