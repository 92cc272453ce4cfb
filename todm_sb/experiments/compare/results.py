"""What a finished cell left on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from todm_sb.experiments.compare.bootstrap import relative_difference
from todm_sb.space import SubnetConfig
from todm_sb.training.error_rates import SCORED_KEYS
from todm_sb.utils.errors import DataError


@dataclass(frozen=True)
class Tested:
    """A network on a test set.

    Args:
        words: words of each utterance.
        errors: errors in each.
        scored: what the error rates are of, see :func:`todm_sb.utils.tables.scored_text`; empty of
            a run that did not record it.
    """

    words: dict[str, int]
    errors: dict[str, int]
    scored: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a run's training took.

    Args:
        wall, processor: seconds of the training epochs, without validation.
        with_validation: processor seconds with it.
        optimizer_steps: number of them.
    """

    wall: float
    processor: float
    with_validation: float
    optimizer_steps: int

    @classmethod
    def read(cls, folder: Path) -> Cost:
        """From the folder of a run."""
        cost = json.loads((folder / "cost.json").read_text(encoding="utf-8"))
        seconds = cost["seconds"]
        return cls(
            wall=seconds["train"]["wall"],
            processor=seconds["train"]["processor"],
            with_validation=sum(part["processor"] for part in seconds.values()),
            optimizer_steps=cost["optimizer_steps"],
        )


def read_tested(folder: Path, split: str, subnet: SubnetConfig | None = None) -> Tested:
    """A measured subnet of a run.

    Args:
        folder: of the run.
        split: name of the test set.
        subnet: None for the max subnet.

    Raises:
        DataError: if the run did not measure it.
    """
    results = json.loads((folder / f"results_{split}.json").read_text(encoding="utf-8"))
    for result in results:
        if subnet in (None, SubnetConfig.pick(result)):
            tested = json.loads((folder / f"errors_{split}.json").read_text(encoding="utf-8"))
            keys = tested["utterances"]
            errors = tested["errors"][result["subnet"]]
            return Tested(
                dict(zip(keys, tested["words"], strict=True)),
                dict(zip(keys, errors, strict=True)),
                {key: result[key] for key in SCORED_KEYS if key in result},
            )
    name = "max" if subnet is None else subnet.to_json()
    raise DataError(f"{folder} has no results of the subnet {name}: delete the folder")


Pair = tuple[Tested, Tested]


def compare_error_rates(pairs_of: Mapping[int, Sequence[Pair]]) -> dict[str, Any]:
    """Pooled error rates of two systems, ours relative to theirs.

    Runs of several seeds, or sizes, are drawn together: the bootstrap is over utterances, and an
    utterance brings the errors of all of them.

    Args:
        pairs_of: for each seed (ours, theirs), evaluated on the same utterances; a pair a size.

    Returns:
        ``WER`` and ``WER of the other`` in percent, ``relative difference``: ``value``, ``low``
        and ``high`` in percent, and ``by seed`` this value for each seed alone.

    Raises:
        DataError: if a pair was not evaluated on the same utterances.
    """
    pairs = [pair for found in pairs_of.values() for pair in found]
    if any(a.words != b.words for a, b in pairs):
        raise DataError("two runs were not tested on the same utterances: delete one of them")
    words = sum(sum(a.words.values()) for a, _ in pairs)
    ours, theirs = _errors(pairs)

    def of_seed(found: Sequence[Pair]) -> float | None:
        ours, theirs = _errors(found)
        return relative_difference(ours, theirs, n_resamples=1).to_dict()["value"]

    return {
        "WER": 100 * ours.sum() / words,
        "WER of the other": 100 * theirs.sum() / words,
        "relative difference": relative_difference(ours, theirs).to_dict(),
        "by seed": {str(seed): of_seed(found) for seed, found in pairs_of.items()},
    }


def _errors(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """(2, utterances), our and their errors, added up where pairs share an utterance's name."""
    totals: list[Counter[str]] = [Counter(), Counter()]
    for pair in pairs:
        for total, tested in zip(totals, pair, strict=True):
            total.update(tested.errors)
    return np.array([[total[key] for key in sorted(totals[0])] for total in totals])
