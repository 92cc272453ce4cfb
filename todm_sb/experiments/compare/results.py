"""What a finished cell left on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from todm_sb.experiments.compare.bootstrap import relative_difference
from todm_sb.experiments.compare.cells import Label, fold_of
from todm_sb.space import SubnetConfig
from todm_sb.training.error_rates import SCORED_KEYS
from todm_sb.utils.errors import DataError


@dataclass(frozen=True)
class Tested:
    """A network on a test set.

    Args:
        words: words of each utterance.
        errors: errors in each.
        speakers: who says it; an utterance whose speaker nobody knows is its own.
        scored: what the error rates are of, see :func:`todm_sb.utils.tables.scored_text`; empty of
            a network that is no run of ours.
    """

    words: dict[str, int]
    errors: dict[str, int]
    speakers: dict[str, str] = field(default_factory=dict)
    scored: dict[str, Any] = field(default_factory=dict)

    def within(self, fold: str) -> Tested:
        """The same with the fold's name before the ids, which are unique only within a fold, as
        speakers are whom nobody knows."""
        return replace(
            self,
            words={f"{fold}/{key}": n for key, n in self.words.items()},
            errors={f"{fold}/{key}": n for key, n in self.errors.items()},
            speakers={
                f"{fold}/{key}": f"{fold}/{key}" if name == key else name
                for key, name in self.speakers.items()
            },
        )


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
                dict(zip(keys, tested["speakers"], strict=True)),
                {key: result[key] for key in SCORED_KEYS},
            )
    name = "max" if subnet is None else subnet.to_json()
    raise DataError(f"{folder} has no results of the subnet {name}: delete the folder")


Pair = tuple[Tested, Tested]


def compare_error_rates(pairs_of: Mapping[Label, Sequence[Pair]]) -> dict[str, Any]:
    """Pooled error rates of two systems, ours relative to theirs.

    The bootstrap is over seeds and over speakers, or over utterances where the speakers are not
    known or all the same; sizes are no draw of something larger, so their errors are added up.
    What two folds call by one id are two utterances; a speaker of one name is the same in all.

    Args:
        pairs_of: for each seed, after its fold if there are several, (ours, theirs), evaluated on
            the same utterances; a pair a size.

    Returns:
        ``WER`` and ``WER of the other`` in percent, ``relative difference``: ``value``, ``low``
        and ``high`` in percent, over how many ``units`` of what (``unit``), and ``by seed`` this
        value for each seed alone.

    Raises:
        DataError: if a pair was not evaluated on the same utterances.
    """
    found_of = {
        run: [(a.within(fold_of(run)), b.within(fold_of(run))) for a, b in found]
        for run, found in pairs_of.items()
    }
    pairs = [pair for found in found_of.values() for pair in found]
    if any(a.words != b.words for a, b in pairs):
        raise DataError("two runs were not tested on the same utterances: delete one of them")
    words = sum(sum(a.words.values()) for a, _ in pairs)
    unit, unit_of = units(pairs)
    runs = [_errors(found, unit_of) for found in found_of.values()]
    ours, theirs = np.stack(runs, axis=1)

    def alone(run: int) -> float | None:
        return relative_difference(ours[run], theirs[run], n_resamples=1).to_dict()["value"]

    return {
        "WER": 100 * ours.sum() / words,
        "WER of the other": 100 * theirs.sum() / words,
        "relative difference": relative_difference(ours, theirs).to_dict(),
        "unit": unit,
        "units": ours.shape[1],
        "by seed": {str(seed): alone(i) for i, seed in enumerate(pairs_of)},
    }


def units(pairs: Sequence[Pair]) -> tuple[str, dict[str, str]]:
    """What is drawn by the bootstrap, and that of each utterance: its speaker, or itself.

    Args:
        pairs: of all runs.
    """
    speakers: dict[str, str] = {}
    for a, _ in pairs:
        speakers |= a.speakers
    utterances = {key for a, _ in pairs for key in a.words}
    if speakers.keys() >= utterances and 1 < len(set(speakers.values())) < len(utterances):
        return "speakers", speakers
    return "utterances", {key: key for key in utterances}


def _errors(pairs: Sequence[Pair], unit_of: Mapping[str, str]) -> NDArray[np.int64]:
    """(2, units), our and their errors, added up over pairs and over the utterances of a unit."""
    totals: list[Counter[str]] = [Counter(), Counter()]
    for pair in pairs:
        for total, tested in zip(totals, pair, strict=True):
            for key, n in tested.errors.items():
                total[unit_of[key]] += n
    every = sorted(set(unit_of.values()))
    return np.array([[total[key] for key in every] for total in totals])
