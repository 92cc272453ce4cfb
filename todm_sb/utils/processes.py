"""What one of several processes does for all, so that they end together where it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from speechbrain.utils.distributed import if_main_process, is_distributed_initialized
from torch import distributed

from todm_sb.errors import TODMError

T = TypeVar("T")


def on_first(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What a function returns or raises in the first process, in every process.

    SpeechBrain's ``run_on_main`` leaves the others waiting for a process that has ended, with a
    traceback of each.

    Args:
        function: all processes must come here; only the first calls it.
        args, kwargs: of it.

    Raises:
        TODMError, OSError: as the function did.
        Exception: whatever else it raised; in the other processes a TODMError that says so.
    """
    if not is_distributed_initialized():
        return function(*args, **kwargs)
    verdict: list[Any] = [None, None]
    failure: Exception | None = None
    if if_main_process():
        try:
            verdict[0] = function(*args, **kwargs)
        except Exception as error:
            failure = error
            mendable = isinstance(error, (TODMError, OSError))
            verdict[1] = error if mendable else TODMError(f"the first process failed: {error!r}")
    distributed.broadcast_object_list(verdict)
    if failure is not None:
        raise failure
    if verdict[1] is not None:
        raise verdict[1]
    return verdict[0]
