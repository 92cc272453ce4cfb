"""Under which names the losses of a step are logged: the one place that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from todm_sb.supernet.losses import SubnetNumbers


@dataclass(frozen=True)
class LogNames:
    """What a term of the objective is called.

    Args:
        each: in ``steps.jsonl``, the list with a number for each subnet that has it.
        first: in the training log and TensorBoard, that of the first subnet, max; None for none.
        others: there, its mean over the other subnets; None for none.
    """

    each: str
    first: str | None
    others: str | None = None


NAMES = {
    "transducer": LogNames("losses", "max", "others"),
    "ctc": LogNames("ctc", "ctc"),
    "kd": LogNames("divergences", None, "kd"),
}
# Terms that go by their own name.
OWN = ("simple", "consistency")
# Begins the names of all others, the objective's further ones: whatever somebody calls them, they
# stand in place of nothing else that is logged.
FURTHER = "term "


def names_of(term: str) -> LogNames:
    """What a term is called; a further one by its own name behind :data:`FURTHER`, which stands
    for max's, or for the mean over the other subnets where max has none."""
    name = term if term in OWN else FURTHER + term
    return NAMES.get(term, LogNames(name, name, name))


def numbers_of_each(losses: Sequence[SubnetNumbers]) -> dict[str, list[float]]:
    """Each term of the subnets of a step, for ``steps.jsonl``.

    Args:
        losses: of each subnet.
    """
    found = {names.each: [] for names in NAMES.values()}
    for of_subnet in losses:
        for term, loss in of_subnet.terms.items():
            found.setdefault(names_of(term).each, []).append(loss)
    return found


def means_of_step(losses: Sequence[SubnetNumbers]) -> dict[str, float]:
    """What a step adds to the training log; losses that are not finite are left out.

    Args:
        losses: max's, then the others'.
    """
    means: dict[str, float] = {}
    for term in dict.fromkeys(term for of_subnet in losses for term in of_subnet.terms):
        names = names_of(term)
        for name, of in ((names.first, losses[:1]), (names.others, losses[1:])):
            values = [x.terms[term] for x in of if term in x.terms]
            known = [value for value in values if math.isfinite(value)]
            if name is not None and known:
                means.setdefault(name, fmean(known))
    return means
