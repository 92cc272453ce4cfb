"""Error rates of any recogniser on any test set, and whether two recognisers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from todm_sb.dataio.audio import Conversion, read_samples
from todm_sb.dataio.check import EVALUATE, Limits, check_manifest
from todm_sb.dataio.faults import EMPTY, Undecodable
from todm_sb.dataio.manifest import Row
from todm_sb.dataio.reading import AS_WRITTEN, Reading
from todm_sb.dataio.text import words_of_text
from todm_sb.experiments.compare.results import Tested, compare_error_rates
from todm_sb.experiments.compare.tables import difference_text
from todm_sb.inference.recogniser import Cutting, Recogniser, transcribe_sources
from todm_sb.inference.sources import Source
from todm_sb.training.error_rates import ErrorRates
from todm_sb.utils.errors import DataError

# What the network cannot take as it is: the rate is changed, channels are mixed down.
CONVERSION = Conversion(resample=True, mixdown=True)
EDITS = ("insertions", "deletions", "substitutions")
RATES = ("WER", "CER", *EDITS)


@dataclass(frozen=True)
class EvaluationSet:
    """Utterances to decode.

    Args:
        name: of it.
        rows: of its manifest.
        left_out: what of the manifest is no utterance: the number for each cause.
        undecodable: those whose row tells no audio: nothing is decoded, their words count all the
            same.
    """

    name: str
    rows: tuple[Row, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    undecodable: tuple[Undecodable, ...] = ()

    @classmethod
    def read(cls, manifest: Path, reading: Reading = AS_WRITTEN) -> EvaluationSet:
        """The utterances of a manifest that have a transcript, by the rules of a test in training;
        audio is not opened yet.

        Args:
            manifest: CSV or JSON.
            reading: how it is read.

        Raises:
            DataError: if it is none, or has none.
        """
        limits = Limits(conversion=CONVERSION)
        report = check_manifest(manifest, limits, "none", purpose=EVALUATE, reading=reading)
        if not report.rows:
            raise DataError(f"{report.summary()}: there is nothing to decode")
        return cls(manifest.stem, tuple(report.rows), report.left_out, tuple(report.undecodable))

    def spoken(self, tokenizer: Any) -> EvaluationSet:
        """The same without transcripts of which a tokenizer leaves no word: they are empty.

        Args:
            tokenizer: of a network.

        Raises:
            DataError: if nothing is left.
        """
        rows = tuple(row for row in self.rows if words_of_text(tokenizer, row.wrds))
        lost = tuple(x for x in self.undecodable if words_of_text(tokenizer, x.words))
        n = len(self.rows) + len(self.undecodable) - len(rows) - len(lost)
        if not n:
            return self
        if not rows:
            raise DataError(f"{self.name}: all transcripts are empty: there is nothing to decode")
        left_out = {**self.left_out, EMPTY: self.left_out.get(EMPTY, 0) + n}
        return EvaluationSet(self.name, rows, left_out, lost)

    def check_words(self, tokenizers: Mapping[str, Any]) -> None:
        """Makes sure that networks are judged by the same words, before anything is decoded.

        Args:
            tokenizers: of the networks, by name.

        Raises:
            DataError: if a transcript is of more words for one tokenizer than for another, as they
                normalise text in different ways, or all are empty.
        """
        for tokenizer in tokenizers.values():
            self.spoken(tokenizer)
        texts = {row.ID: row.wrds for row in self.rows}
        texts |= {x.fault.id: x.words for x in self.undecodable}
        (first, its), *others = tokenizers.items()
        for id_, text in texts.items():
            n = len(words_of_text(its, text))
            for name, tokenizer in others:
                if (m := len(words_of_text(tokenizer, text))) != n:
                    raise DataError(
                        f"{self.name}: the transcript of {id_} is {n} words for {first} and {m} for"
                        f" {name}: change it, leave it out, or evaluate the two apart"
                    )

    def speakers(self) -> dict[str, str]:
        """Who says each utterance, by id; of one whose speaker nobody knows, its id."""
        told = {row.ID: row.spk_id for row in self.rows}
        told |= {x.fault.id: x.speaker for x in self.undecodable}
        return {id_: speaker or id_ for id_, speaker in told.items()}

    @property
    def sources(self) -> list[Source]:
        """The audio; names are the utterances' ids."""
        return [Source(row.wav, row.ID) for row in self.rows]

    def loader(self, sample_rate: int) -> Callable[[Source], NDArray[np.float32]]:
        """What gives the samples of a source, which may be a part of its file.

        Args:
            sample_rate: of the samples, in Hz.
        """
        rows = {row.ID: row for row in self.rows}

        def load(source: Source) -> NDArray[np.float32]:
            row = rows[source.name]
            return read_samples(row.wav, row.duration, sample_rate, CONVERSION, row.part)

        return load


class Evaluated:
    """What one recogniser made of a test set.

    Args:
        name: of the recogniser.
        errors: its error rates.
        test_set: that they are of.
        faults: why utterances could not be decoded; their words count as deleted.
    """

    def __init__(
        self, name: str, errors: ErrorRates, test_set: EvaluationSet, faults: list[str]
    ) -> None:
        self.name = name
        self.errors = errors
        self.test_set = test_set
        self.faults = faults

    @property
    def scored(self) -> dict[str, Any]:
        """What the error rates are of, see :func:`todm_sb.utils.tables.scored_text`."""
        return {**self.errors.scored(), "left_out": self.test_set.left_out}

    def rates(self) -> dict[str, float]:
        """``WER``, ``CER``, and insertions, deletions and substitutions, in percent of words."""
        words = self.errors.words[self.name].summarize()
        total = max(1, words["num_scored_tokens"])
        return {
            **self.errors.rates()[self.name],
            **{kind: 100 * words[kind] / total for kind in EDITS},
        }

    def tested(self) -> Tested:
        """Words, word errors and speaker of each utterance."""
        found = self.errors.by_utterance()
        ids, errors = found["utterances"], found["errors"][self.name]
        speakers = self.test_set.speakers()
        return Tested(
            dict(zip(ids, found["words"], strict=True)),
            dict(zip(ids, errors, strict=True)),
            {id_: speakers[id_] for id_ in ids},
        )

    def against(self, other: Evaluated) -> dict[str, Any]:
        """How much higher the word error rate is than another's, relative to it, in percent, with
        the interval of a paired bootstrap over speakers or, where they are not told, utterances.

        Args:
            other: on the same test set; see :meth:`EvaluationSet.check_words`.

        Returns:
            ``value``, ``low``, ``high``, and over how many ``units`` of what (``unit``).
        """
        found = compare_error_rates({"": [(self.tested(), other.tested())]})
        return {**found["relative difference"], "unit": found["unit"], "units": found["units"]}


def evaluate(
    name: str,
    recogniser: Recogniser,
    tokenizer: Any,
    test_set: EvaluationSet,
    cutting: Cutting | None = None,
    progress: Callable[[Any], Any] = iter,
) -> Evaluated:
    """Decodes a test set.

    Args:
        name: of the recogniser.
        recogniser: it.
        tokenizer: of it: words are those that it knows, as in training.
        test_set: what to decode.
        cutting: see :class:`todm_sb.inference.recogniser.Cutting`.
        progress: goes through what is decoded.

    Raises:
        DataError: if all transcripts are empty for the tokenizer.
    """
    test_set = test_set.spoken(tokenizer)
    lost = test_set.undecodable
    errors, faults = ErrorRates([name]), [str(x.fault) for x in lost]
    errors.append_undecodable({x.fault.id: words_of_text(tokenizer, x.words) for x in lost})
    rows, load = iter(test_set.rows), test_set.loader(recogniser.sample_rate)
    for done in progress(transcribe_sources(recogniser, test_set.sources, cutting, load)):
        spoken = words_of_text(tokenizer, next(rows).wrds)
        if done.transcript is None:
            faults.append(f"{done.source.name}: {done.error}")
            errors.append_undecodable({done.source.name: spoken})
        else:
            found = words_of_text(tokenizer, done.transcript.text)
            errors.append(name, [done.source.name], [found], [spoken])
    return Evaluated(name, errors, test_set, faults)


def records_of(found: Sequence[Evaluated], parameters: Mapping[str, int]) -> list[dict[str, Any]]:
    """What is known of each recogniser, for JSON: parameters, error rates and what they are of,
    and for all but the first the ``WER difference`` from it.

    Args:
        found: on the same test set.
        parameters: by name.
    """
    records = []
    for one in found:
        record = {"network": one.name, "parameters": parameters[one.name]}
        record |= {**one.rates(), **one.scored}
        if one is not found[0]:
            record["WER difference"] = one.against(found[0])
        records.append(record)
    return records


def rows_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The same as rows of a table.

    Args:
        records: of :func:`records_of`.
    """
    rows = []
    for record in records:
        row = {"network": record["network"], "parameters": f"{record['parameters']:,}"}
        row |= {f"{key} %": f"{record[key]:.2f}" for key in RATES}
        if x := record.get("WER difference"):
            row[f"WER difference %, {x['units']} {x['unit']}"] = difference_text(x)
        rows.append(row)
    return rows
