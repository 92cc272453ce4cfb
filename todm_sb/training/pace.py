"""How much audio an optimizer step takes: schedules count audio, not steps.

The same 960 hours are ten thousand steps an epoch on one GPU and two hundred on 64. So what a
recipe says of batches (Eden's ``lr_batches``, every warm-up, the start of the sandwich) is of
reference batches: ``reference_batch_seconds`` of audio, however many steps they take.

A step counts what its batches may hold at most, ``max_batch_seconds`` in each process, as icefall's
Zipformer does for the schedules within its network. What they hold in truth differs by a few per
cent, padding included, and in the last step of an epoch, which may lack batches of its group. For
that, processes need not tell each other lengths, and a step is worth the same whatever is in it.

Eden counts the reference batches and keeps them in checkpoints: a run that goes on with another
number of processes goes on from the audio that it has had, in the midst of an epoch, too
(:mod:`todm_sb.training.epoch_position`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from todm_sb.utils.errors import ConfigError

# As ``grad_accumulation_factor``: as many batches as come nearest to a reference batch.
AUTO = "auto"


@dataclass(frozen=True)
class Pace:
    """What makes up an optimizer step.

    Args:
        grad_accumulation_factor: batches that each process gathers gradients of.
        reference_batches: that a step counts as, over all processes.
    """

    grad_accumulation_factor: int
    reference_batches: float


def never_begun(settings: Mapping[str, Any], n_batches: int, pace: Pace) -> list[str]:
    """What of a recipe would not begin before its training ends, a line each.

    Args:
        settings: of the recipe.
        n_batches: of an epoch, in each process.
        pace: of the training.
    """
    n_steps = math.ceil(n_batches / pace.grad_accumulation_factor)
    n = n_steps * settings["epoch_counter"].limit * pace.reference_batches
    lines = []
    if settings["space"].size > 1 and settings["sandwich_warmup"] >= n:
        lines.append(
            f"sandwich_warmup is {settings['sandwich_warmup']:g}, but the whole training is "
            f"{n:g} reference batches: only max is trained, and no other subnet is of use; "
            f"--sandwich_warmup={round(0.2 * n)} leaves them the last four fifths"
        )
    begins = {"augment_after": ["wav", "noise", "feature"]}
    if settings.get("mask_after") is not None:
        begins = {"augment_after": ["wav", "noise"], "mask_after": ["feature"]}
    for key, kinds in begins.items():
        waiting = [f"{kind}_augment" for kind in kinds if settings.get(f"{kind}_augment")]
        if waiting and settings.get(key, 0) >= n:
            lines.append(
                f"{key} is {settings[key]:g}, but the whole training is {n:g} reference batches, "
                f"none with {' or '.join(waiting)}; --{key}=0 begins at once"
            )
    return lines


def pace_of(settings: Mapping[str, Any], factor: int | str, n_ranks: int) -> Pace:
    """The pace of a training.

    Args:
        settings: of the recipe: ``max_batch_seconds`` and ``reference_batch_seconds``. Without the
            latter each step counts as a reference batch.
        factor: ``grad_accumulation_factor``, a number or ``auto``.
        n_ranks: processes that train together.

    Raises:
        ConfigError: if ``grad_accumulation_factor`` is ``auto``, and there is nothing to reach.
    """
    reference = settings.get("reference_batch_seconds")
    if reference is None:
        if isinstance(factor, str):
            raise ConfigError(
                f"grad_accumulation_factor is {AUTO}, but there is no reference_batch_seconds to "
                "reach: give one of them as a number"
            )
        return Pace(factor, 1.0)
    seconds = settings["max_batch_seconds"] * n_ranks
    n = max(1, round(reference / seconds)) if isinstance(factor, str) else factor
    return Pace(n, n * seconds / reference)


def check_batches(n_batches: int, grad_accumulation_factor: int) -> None:
    """Checks that an epoch has an optimizer step.

    Args:
        n_batches: of an epoch, in this process.
        grad_accumulation_factor: batches a step.

    Raises:
        ConfigError: if it has fewer batches than a step takes.
    """
    if n_batches < grad_accumulation_factor:
        raise ConfigError(
            f"grad_accumulation_factor is {grad_accumulation_factor}, but an epoch has only "
            f"{n_batches} batches (for each process): lower it, max_batch_seconds or, where it is "
            f"{AUTO}, reference_batch_seconds"
        )
