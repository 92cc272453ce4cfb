"""Why utterances cannot be used: faults, and the report of a manifest."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

from todm_sb.dataio.manifest import Row, write_table
from todm_sb.utils.errors import DataError

logger = logging.getLogger(__name__)

# What utterances are for: they are trained on, or error rates are measured on them.
TRAIN, EVALUATE = "train", "evaluate"
PURPOSES = (TRAIN, EVALUATE)
# Cause of what has no words; they can also be none that a tokenizer leaves.
EMPTY = "empty transcript"


@dataclass(frozen=True)
class Fault:
    """Why an utterance cannot be used.

    Args:
        line: of the manifest; the header is line 1. 0 in a corpus that has no manifest yet.
        id: of the utterance, or its file.
        cause: its kind, to count by, such as ``empty transcript``.
        detail: what was found, and how it is mended.
    """

    line: int
    id: str
    cause: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"line {self.line}: {self.id}: {self.cause}{detail}"


@dataclass(frozen=True)
class Undecodable:
    """An utterance to be evaluated whose audio cannot be decoded: all its words count as deleted.

    Args:
        fault: why it cannot.
        words: its transcript.
        speaker: who says it; empty if nobody knows.
    """

    fault: Fault
    words: str
    speaker: str = ""


@dataclass(frozen=True)
class Report:
    """Which utterances a manifest has.

    Args:
        path: the manifest.
        rows: the utterances that are trained on, or decoded, in the manifest's order.
        faults: what is left out, in the manifest's order.
        undecodable: to be evaluated all the same, in the manifest's order.
        purpose: ``train`` or ``evaluate``.
    """

    path: str
    rows: list[Row]
    faults: list[Fault]
    undecodable: list[Undecodable] = field(default_factory=list)
    purpose: str = TRAIN

    @property
    def all_faults(self) -> list[Fault]:
        """Of what is left out and of what cannot be decoded, in the manifest's order."""
        faults = [*self.faults, *(lost.fault for lost in self.undecodable)]
        return sorted(faults, key=lambda fault: fault.line)

    @property
    def left_out(self) -> dict[str, int]:
        """What is left out: the number for each cause, the most frequent first."""
        return causes_of(self.faults)

    def summary(self) -> str:
        """One line: utterances, hours, and the number left out, or not decoded, for each cause."""
        hours = sum(row.duration for row in self.rows) / 3600
        total = len(self.rows) + len(self.faults) + len(self.undecodable)
        can = "used" if self.purpose == TRAIN else "decoded"
        found = f"{len(self.rows)} of {total} utterances can be {can}, {hours:.2f} hours"
        return "; ".join([f"{self.path}: {found}", *self._losses()])

    def require(self, strict: bool = False) -> Report:
        """This report, unless there is nothing to train on, or to decode.

        Args:
            strict: refuse a single fault.

        Raises:
            DataError: if no utterance can be used or, with ``strict``, if one cannot.
        """
        faults = self.all_faults
        if strict and faults:
            raise DataError(
                f"{self.summary()}; the first at {faults[0]}: mend it, or leave out --strict"
            )
        if not self.rows:
            causes = ", ".join(dict.fromkeys(fault.cause for fault in faults))
            can = "used" if self.purpose == TRAIN else "decoded"
            raise DataError(
                f"{self.path}: no utterance can be {can} ({causes or 'the manifest is empty'})"
            )
        return self

    def log(self) -> None:
        """Writes one line a cause to the log, and each fault on the debug level."""
        for loss in self._losses():
            logger.warning("%s: %s", self.path, loss)
        for fault in self.all_faults:
            logger.debug("%s: %s", self.path, fault)

    def _losses(self) -> list[str]:
        lost = causes_of(lost.fault for lost in self.undecodable)
        return [
            *(f"{n} cannot be decoded, their words count as deleted: {c}" for c, n in lost.items()),
            *(f"{n} left out: {cause}" for cause, n in self.left_out.items()),
        ]


def causes_of(faults: Iterable[Fault]) -> dict[str, int]:
    """The number of faults of each cause, the most frequent first."""
    return dict(Counter(fault.cause for fault in faults).most_common())


def holds_faults(path: Path) -> bool:
    """Whether a file is one of :func:`write_faults`, by its header."""
    header = ",".join(column.name for column in fields(Fault)).encode() + b"\n"
    with path.open("rb") as file:
        return file.read(len(header)) == header


def write_faults(path: str | Path, faults: Iterable[Fault]) -> None:
    """Writes faults as a CSV ``line,id,cause,detail``."""
    write_table(path, Fault, faults)


def read_faults(path: str | Path) -> list[Fault]:
    """Reads what :func:`write_faults` wrote."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [
            Fault(int(row["line"]), row["id"], row["cause"], row["detail"])
            for row in csv.DictReader(file)
        ]
