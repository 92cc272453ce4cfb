"""Errors of several networks on one set of utterances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein
from speechbrain.utils.metric_stats import ErrorRateStats

from todm_sb.training.distributed import all_gather

# What results, comparisons and bundles tell of the data that error rates are of.
SCORED_KEYS = ("utterances", "words", "undecodable", "left_out")


class ErrorRates:
    """Word and character errors by network, as batches are evaluated.

    Args:
        names: of the networks.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.words = {name: ErrorRateStats() for name in names}
        # The errors, and how many characters were spoken.
        self.characters = dict.fromkeys(self.words, (0, 0))
        self.undecodable: set[str] = set()

    def append(
        self, name: str, ids: list[str], found: Sequence[list[str]], spoken: Sequence[list[str]]
    ) -> None:
        """Counts the errors of a batch.

        Args:
            name: of the network.
            ids: of the utterances.
            found: words that the network found in each.
            spoken: words of each.
        """
        self.words[name].append(ids, found, spoken)
        errors, n = self.characters[name]
        for hypothesis, text in zip(map(" ".join, found), map(" ".join, spoken), strict=True):
            # SpeechBrain's distance, in Python, takes longer than a small network takes to decode.
            errors += Levenshtein.distance(hypothesis, text)
            n += len(text)
        self.characters[name] = errors, n

    def append_undecodable(self, spoken: Mapping[str, list[str]]) -> None:
        """Counts all words and characters of utterances that cannot be decoded as deleted.

        Args:
            spoken: words of each, by id.
        """
        if not spoken:
            return
        self.undecodable |= spoken.keys()
        for name in self.words:
            self.append(name, list(spoken), [[] for _ in spoken], list(spoken.values()))

    def merge(self) -> None:
        """Gives every process the errors of all."""
        self.undecodable = set().union(*all_gather(self.undecodable))
        for stats in self.words.values():
            words = all_gather((stats.ids, stats.scores))
            stats.ids = [id_ for ids, _ in words for id_ in ids]
            stats.scores = [score for _, scores in words for score in scores]
        parts = all_gather(self.characters)
        for name in self.characters:
            errors, n = zip(*(part[name] for part in parts), strict=True)
            self.characters[name] = sum(errors), sum(n)

    def rates(self) -> dict[str, dict[str, float]]:
        """``WER`` and ``CER`` of each network, in percent."""
        return {
            name: {
                "WER": self.words[name].summarize("error_rate"),
                "CER": self._cer(name),
            }
            for name in self.words
        }

    def _cer(self, name: str) -> float:
        errors, n = self.characters[name]
        # Of nothing, as SpeechBrain's WER: references may be of letters that normalise to none.
        return 100 * errors / n if n else 0.0

    def by_rate_and_name(self) -> dict[str, float]:
        """The rates for a log: ``WER max`` and so on."""
        return {f"{key} {name}": v for name, r in self.rates().items() for key, v in r.items()}

    def mean_wer(self) -> float:
        """The mean WER of the networks, in percent."""
        rates = self.rates()
        return sum(rate["WER"] for rate in rates.values()) / len(rates)

    def scored(self) -> dict[str, int]:
        """``utterances`` and ``words`` that the rates are of, ``undecodable`` of the utterances."""
        scores = next(iter(self.words.values())).scores
        return {
            "utterances": len(scores),
            "words": sum(score["num_ref_tokens"] for score in scores),
            "undecodable": len(self.undecodable),
        }

    def by_utterance(self) -> dict[str, Any]:
        """``utterances``, their ``words``, and the ``errors`` of each network in each.

        An error is a word that is put in, left out or replaced.
        """
        scores = {
            name: {score["key"]: score for score in stats.scores}
            for name, stats in self.words.items()
        }
        first = next(iter(scores.values()))
        utterances = sorted(first)
        return {
            "utterances": utterances,
            "words": [first[key]["num_ref_tokens"] for key in utterances],
            "errors": {
                name: [of[key]["num_edits"] for key in utterances] for name, of in scores.items()
            },
        }

    def write_alignments(self, folder: Path, split: str) -> None:
        """Writes ``wer_<split>_<name>.txt`` of each network."""
        for name, stats in self.words.items():
            with (folder / f"wer_{split}_{name}.txt").open("w", encoding="utf-8") as file:
                stats.write_stats(file)
