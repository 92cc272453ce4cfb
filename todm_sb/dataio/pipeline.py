"""From CSV manifests to batches: tokenizer, datasets and batch samplers, all SpeechBrain's."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataio import load_data_csv, read_audio
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.tokenizers.SentencePiece import SentencePiece
from speechbrain.utils.distributed import run_on_main

from todm_sb.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

# SpeechBrain's tokenizers give unknown pieces this id; the transducer uses it for blank.
UNKNOWN = 0


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
        "model_dir": folder,
        "vocab_size": vocab_size,
        "annotation_train": train_csv,
        "annotation_read": "wrds",
        "annotation_format": "csv",
        "model_type": model_type,
    }
    try:
        run_on_main(SentencePiece, kwargs=arguments)
        return SentencePiece(**arguments).sp
    except RuntimeError as error:
        reason = str(error).rsplit("] ", 1)[-1]
        raise ConfigError(
            f"no {model_type} tokenizer of {vocab_size} pieces from {train_csv}: {reason}"
        ) from None


def make_dataset(
    csv_path: str,
    tokenizer: SentencePieceProcessor,
    n_frames_of: Callable[[float], int],
    max_duration: float = math.inf,
) -> DynamicItemDataset:
    """Utterances of a manifest as ``id, sig, words, tokens``, longest last.

    Utterances that cannot be trained on are left out and counted by cause in the log.

    Args:
        csv_path: manifest with the columns ``ID,duration,wav,spk_id,wrds``.
        tokenizer: from words to label ids.
        n_frames_of: encoder frames of an utterance of so many seconds.
        max_duration: seconds.

    Raises:
        DataError: if the manifest is missing, or no utterance is left.
    """
    if not Path(csv_path).is_file():
        raise DataError(f"manifest {csv_path} does not exist: run the data preparation first")
    data, skipped = {}, Counter()
    for key, row in load_data_csv(csv_path).items():
        cause = _unusable(row, tokenizer, n_frames_of, max_duration)
        if cause is None:
            data[key] = row
        else:
            skipped[cause] += 1
            logger.debug("%s: %s: %s", csv_path, key, cause)
    for cause, count in skipped.items():
        logger.warning("%s: %d utterances left out: %s", csv_path, count, cause)
    if not data:
        causes = ", ".join(skipped) or "the manifest is empty"
        raise DataError(f"{csv_path}: no utterance can be used ({causes})")

    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio(wav: str) -> Any:
        return read_audio(wav)

    @sb.utils.data_pipeline.takes("wrds")
    @sb.utils.data_pipeline.provides("words", "tokens")
    def text(words: str) -> Any:
        yield words.split()
        yield torch.LongTensor(tokenizer.encode_as_ids(words))

    dataset = DynamicItemDataset(
        data, dynamic_items=[audio, text], output_keys=["id", "sig", "words", "tokens"]
    )
    return dataset.filtered_sorted(sort_key="duration")


def _unusable(
    row: dict[str, Any],
    tokenizer: SentencePieceProcessor,
    n_frames_of: Callable[[float], int],
    max_duration: float,
) -> str | None:
    """Why an utterance cannot be trained on, or None."""
    labels = tokenizer.encode_as_ids(row["wrds"])
    if not labels:
        return "empty transcript"
    if UNKNOWN in labels:
        return "transcript with characters that the tokenizer does not know"
    if row["duration"] > max_duration:
        return f"longer than max_duration = {max_duration} s"
    if len(labels) > n_frames_of(row["duration"]):
        return "transcript with more labels than the audio has frames"
    return None


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
    return {"batch_sampler": sampler, "collate_fn": PaddedBatch}
