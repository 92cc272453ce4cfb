"""From CSV manifests to batches: tokenizer, datasets and batch samplers, all SpeechBrain's."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.tokenizers.SentencePiece import SentencePiece
from speechbrain.utils.distributed import run_on_main

from todm_sb.dataio.check import Limits, check_manifest, read_audio
from todm_sb.dataio.text import words_of_text
from todm_sb.errors import ConfigError, DataError


def get_tokenizer(
    folder: str, vocab_size: int, train_csv: str, model_type: str = "unigram"
) -> SentencePieceProcessor:
    """The SentencePiece tokenizer of a run, trained on its first use.

    Args:
        folder: where it is kept.
        vocab_size: pieces, the unknown one (id 0, blank) included.
        train_csv: manifest whose ``wrds`` it is trained on.
        model_type: ``unigram``, ``bpe`` or ``char``.

    Raises:
        ConfigError: if SentencePiece refuses, most often a vocabulary larger than the text allows.
    """
    arguments = {
        "vocab_size": vocab_size,
        "annotation_train": train_csv,
        "annotation_read": "wrds",
        "annotation_format": "csv",
        "model_type": model_type,
    }
    try:
        run_on_main(_train_tokenizer, [Path(folder), arguments])
        return SentencePiece(model_dir=folder, **arguments).sp
    except RuntimeError as error:
        reason = str(error).rsplit("] ", 1)[-1]
        raise ConfigError(
            f"no {model_type} tokenizer of {vocab_size} pieces from {train_csv}: {reason}"
        ) from None


def _train_tokenizer(folder: Path, arguments: dict[str, Any]) -> None:
    """Trains in a folder aside, so that a run killed meanwhile leaves no half of a model."""
    model = f"{arguments['vocab_size']}_{arguments['model_type']}.model"
    if (folder / model).exists():
        return
    if not Path(arguments["annotation_train"]).is_file():
        raise DataError(
            f"{folder} holds no {model}, and {arguments['annotation_train']}, to train it from, "
            "does not exist"
        )
    folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    SentencePiece(model_dir=str(aside), **arguments)
    for path in sorted(aside.iterdir(), key=lambda path: path.name == model):  # the model last
        os.replace(path, folder / path.name)
    aside.rmdir()


def make_dataset(
    csv_path: str,
    tokenizer: SentencePieceProcessor,
    n_frames_of: Callable[[float], int],
    max_duration: float = math.inf,
    sample_rate: int | None = None,
    strict: bool = False,
    record: str | Path | None = None,
) -> DynamicItemDataset:
    """Utterances of a manifest as ``id, duration, sig, words, tokens``, longest last.

    Utterances that cannot be trained on are left out and counted by cause in the log. The audio
    that breaks later on is a :class:`BrokenAudio` in place of ``sig``; :class:`SpeechBatch` leaves
    it out. Of several processes one looks at the audio.

    Args:
        csv_path: manifest with the columns ``ID,duration,wav,spk_id,wrds``.
        tokenizer: from words to label ids.
        n_frames_of: encoder frames of an utterance of so many seconds.
        max_duration: seconds.
        sample_rate: of the audio, in Hz; None for any.
        strict: refuse a manifest with a fault.
        record: where the faults of the audio are kept; see
            :func:`todm_sb.dataio.check.check_manifest`.

    Raises:
        DataError: if the manifest is missing, no utterance is left or, with ``strict``, one has a
            fault.
    """
    limits = Limits(sample_rate, max_duration, tokenizer, n_frames_of)
    report = run_on_main(check_manifest, [csv_path, limits, "ends"], {"record": record})
    report.log()
    report.require(strict)

    @sb.utils.data_pipeline.takes("wav", "duration")
    @sb.utils.data_pipeline.provides("sig")
    def audio(wav: str, duration: float) -> torch.Tensor | BrokenAudio:
        try:
            return torch.from_numpy(read_audio(wav, duration, sample_rate))
        except DataError as error:
            return BrokenAudio(str(error))

    @sb.utils.data_pipeline.takes("wrds")
    @sb.utils.data_pipeline.provides("words", "tokens")
    def text(words: str) -> Any:
        yield words_of_text(tokenizer, words)
        yield torch.LongTensor(tokenizer.encode_as_ids(words))

    columns = ("duration", "wav", "wrds")
    dataset = DynamicItemDataset(
        {row.ID: {key: getattr(row, key) for key in columns} for row in report.rows},
        dynamic_items=[audio, text],
        output_keys=["id", "duration", "sig", "words", "tokens"],
    )
    return dataset.filtered_sorted(sort_key="duration")


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
    for each of the others, by id.

    Args:
        examples: items of :func:`make_dataset`.
    """

    def __init__(self, examples: list[dict[str, Any]]) -> None:
        broken = {x["id"]: x["sig"].reason for x in examples if isinstance(x["sig"], BrokenAudio)}
        sound = [x for x in examples if x["id"] not in broken]
        super().__init__(sound or [{}])
        self.broken = broken
        if not sound:
            self.id: list[str] = []


def make_loader_kwargs(
    dataset: DynamicItemDataset, max_batch_seconds: float, seed: int, shuffle: bool = True
) -> dict[str, Any]:
    """Arguments for a data loader with batches of similar durations (dynamic batching).

    Args:
        dataset: its items have a ``duration`` in seconds.
        max_batch_seconds: audio of a batch, padding included.
        seed: of the order, together with the epoch.
        shuffle: False gives the same batches, shortest first, in every epoch.
    """
    sampler = DynamicBatchSampler(
        dataset,
        max_batch_length=max_batch_seconds,
        num_buckets=20,
        length_func=lambda row: row["duration"],
        shuffle=shuffle,
        batch_ordering="random" if shuffle else "ascending",
        seed=seed,
    )
    return {"batch_sampler": sampler, "collate_fn": SpeechBatch}
