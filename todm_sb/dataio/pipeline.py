"""From manifests to batches: SpeechBrain's datasets, and arguments for its data loaders.

Processes of a data loader that are not forked get the dataset pickled: it holds no local function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import DynamicItem

from todm_sb.dataio.audio import AS_RECORDED, Conversion, Part, read_samples
from todm_sb.dataio.batches import DurationBatches
from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.faults import TRAIN, Report
from todm_sb.dataio.reading import AS_WRITTEN, Reading
from todm_sb.dataio.text import words_of_text
from todm_sb.dataio.tokenizer import encode
from todm_sb.dataio.tokenizer import get_tokenizer as get_tokenizer
from todm_sb.utils.errors import DataError
from todm_sb.utils.processes import on_first


class SpeechDataset(DynamicItemDataset):
    """Utterances as ``id, duration, sig, words, tokens``, longest last.

    Audio that breaks after the check is a :class:`BrokenAudio` in place of ``sig``;
    :class:`SpeechBatch` keeps it apart. ``tokens`` are the labels of a loss: letters that the
    tokenizer does not know have none, though they are in ``words``.

    Args:
        report: which utterances.
        tokenizer: from words to label ids.
        sample_rate: of the audio, in Hz; None for any.
        conversion: what of the audio is converted.

    Attributes:
        undecodable: the words of each utterance whose audio cannot be decoded, by id; it is not
            among the items, but its words count in evaluation.
        left_out: what of the manifest is no utterance: the number for each cause.
        speakers: of each utterance, by id, also of those that cannot be decoded; empty if nobody
            knows.
    """

    def __init__(
        self,
        report: Report,
        tokenizer: SentencePieceProcessor,
        sample_rate: int | None = None,
        conversion: Conversion = AS_RECORDED,
    ) -> None:
        load = partial(samples_of, sample_rate, conversion)
        super().__init__(
            {
                row.ID: {
                    "duration": row.duration,
                    "wav": row.wav,
                    "part": row.part,
                    "wrds": row.wrds,
                }
                for row in sorted(report.rows, key=lambda row: row.duration)
            },
            dynamic_items=[
                DynamicItem(["wav", "duration", "part"], load, ["sig"]),
                DynamicItem(["wrds"], partial(words_of_text, tokenizer), ["words"]),
                DynamicItem(["wrds"], partial(labels_of, tokenizer), ["tokens"]),
            ],
            output_keys=["id", "duration", "sig", "words", "tokens"],
        )
        self.undecodable = {
            lost.fault.id: words_of_text(tokenizer, lost.words) for lost in report.undecodable
        }
        self.left_out = report.left_out
        self.speakers = {row.ID: row.spk_id for row in report.rows}
        self.speakers |= {lost.fault.id: lost.speaker for lost in report.undecodable}


def samples_of(
    sample_rate: int | None, conversion: Conversion, wav: str, duration: float, part: Part
) -> torch.Tensor | BrokenAudio:
    """The samples of an utterance, by the path, duration and part that the manifest gives."""
    try:
        return torch.from_numpy(read_samples(wav, duration, sample_rate, conversion, part))
    except DataError as error:
        return BrokenAudio(str(error))


def labels_of(tokenizer: SentencePieceProcessor, transcript: str) -> torch.Tensor:
    """The labels of a transcript, for a loss."""
    return torch.LongTensor(encode(tokenizer, transcript))


def make_dataset(
    csv_path: str,
    tokenizer: SentencePieceProcessor,
    n_frames_of: Callable[[float], int],
    max_duration: float = math.inf,
    sample_rate: int | None = None,
    strict: bool = False,
    record: str | Path | None = None,
    purpose: str = TRAIN,
    conversion: Conversion = AS_RECORDED,
    reading: Reading = AS_WRITTEN,
) -> SpeechDataset:
    """The utterances that a manifest has for a purpose.

    The others are counted by cause in the log. Of several processes one looks at the audio.

    Args:
        csv_path: manifest, CSV or JSON; see :mod:`todm_sb.dataio.reading`.
        tokenizer: from words to label ids.
        n_frames_of: encoder frames of an utterance of so many seconds.
        max_duration: of an utterance to train on, in seconds.
        sample_rate: of the audio, in Hz; None for any.
        strict: refuse a manifest with a fault.
        record: where the faults of the audio are kept.
        purpose: ``train`` or ``evaluate``; see :func:`todm_sb.dataio.check.check_manifest`.
        conversion: what of the audio is converted.
        reading: how the manifest is read.

    Raises:
        DataError: if the manifest is missing, no utterance is left or, with ``strict``, one has a
            fault.
    """
    limits = Limits(sample_rate, max_duration, tokenizer, n_frames_of, conversion)
    options = {"record": record, "purpose": purpose, "reading": reading}
    report = on_first(check_manifest, csv_path, limits, "ends", **options)
    report.log()
    return SpeechDataset(report.require(strict), tokenizer, sample_rate, conversion)


@dataclass(frozen=True)
class BrokenAudio:
    """Stands for samples that could not be read.

    Args:
        reason: what was wrong, with the file's name.
    """

    reason: str


class SpeechBatch(PaddedBatch):
    """A padded batch of the utterances whose audio could be read.

    ``id`` lists them; it can be empty, and then there is nothing else. ``broken`` has the reason
    for each of the others, by id, and ``broken_words`` what was said in it.

    Args:
        examples: items of :class:`SpeechDataset`.
    """

    def __init__(self, examples: list[dict[str, Any]]) -> None:
        broken = {x["id"]: x["sig"].reason for x in examples if isinstance(x["sig"], BrokenAudio)}
        sound = [x for x in examples if x["id"] not in broken]
        super().__init__(sound or [{}])
        self.broken = broken
        self.broken_words = {x["id"]: x["words"] for x in examples if x["id"] in broken}
        if not sound:
            self.id: list[str] = []


def make_loader_kwargs(
    dataset: DynamicItemDataset,
    max_batch_seconds: float,
    seed: int,
    shuffle: bool = True,
    growth: float = 1.0,
    ascending_epochs: int = 0,
) -> dict[str, Any]:
    """Arguments for a data loader with batches of similar durations (dynamic batching).

    Args:
        dataset: its items have a ``duration`` in seconds.
        max_batch_seconds: bound on a batch's utterances times the longest of them, in seconds, once
            they are augmented; an utterance that is longer is a batch of its own.
        seed: of the order, together with the epoch.
        shuffle: False gives the same batches, shortest first, in every epoch.
        growth: how many times the audio of a batch can become by augmentation; see
            :func:`todm_sb.dataio.batches.largest_growth`.
        ascending_epochs: so many epochs have their batches in ascending order of duration.
    """
    durations = [dataset.data[name]["duration"] for name in dataset.data_ids]
    bound = max_batch_seconds / growth
    sampler = DurationBatches(durations, bound, seed, shuffle, ascending_epochs)
    return {
        "batch_sampler": sampler,
        "collate_fn": SpeechBatch,
        "pin_memory": torch.cuda.is_available(),  # so that a batch goes over without waiting
    }
