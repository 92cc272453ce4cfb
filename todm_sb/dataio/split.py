"""Which utterances the splits of a run have: one rule for training, validation, test and search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.check import EVALUATE, TRAIN
from todm_sb.dataio.pipeline import SpeechDataset, make_dataset


@dataclass(frozen=True)
class Splits:
    """The data of a run.

    Args:
        train: what it trains on.
        valid: what it validates on.
        tests: the test sets, by name.
    """

    train: SpeechDataset
    valid: SpeechDataset
    tests: dict[str, SpeechDataset]


def read_splits(hparams: Mapping[str, Any], tokenizer: SentencePieceProcessor) -> Splits:
    """Looks at all manifests of a run, those of the test sets too, before its first step.

    What is found of the audio is kept in ``faults_<manifest>.csv`` of the output folder.

    Args:
        hparams: of the recipe.
        tokenizer: of the run.

    Raises:
        DataError: if a manifest is missing, nothing of it can be used or, with ``strict``, it has
            a fault.
    """
    folder, manifests = Path(hparams["output_folder"]), hparams["manifests"]

    def split(csv: str, purpose: str) -> SpeechDataset:
        record = folder / f"faults_{Path(csv).stem}.csv"
        return read_split(hparams, tokenizer, csv, purpose, record)

    return Splits(
        split(hparams["train_csv"], TRAIN),
        split(hparams["valid_csv"], EVALUATE),
        {name: split(f"{manifests}/{name}.csv", EVALUATE) for name in hparams["test_splits"]},
    )


def read_split(
    hparams: Mapping[str, Any],
    tokenizer: SentencePieceProcessor,
    csv: str,
    purpose: str,
    record: Path | None = None,
) -> SpeechDataset:
    """The utterances that a manifest of a run has for a purpose.

    Args:
        hparams: of the recipe.
        tokenizer: of the run.
        csv: the manifest.
        purpose: ``train`` or ``evaluate``; see :func:`todm_sb.dataio.check.check_manifest`.
        record: where the faults of the audio are kept.

    Raises:
        DataError: if the manifest is missing, nothing of it can be used or, with ``strict``, it has
            a fault.
    """
    rate, features = hparams["sample_rate"], hparams["features"]
    encoder = hparams["model"].encoder

    def n_frames_of(seconds: float) -> int:
        return encoder.n_frames(features.n_frames(round(seconds * rate)))

    return make_dataset(
        csv,
        tokenizer,
        n_frames_of,
        hparams["max_duration"],
        rate,
        hparams["strict"],
        record,
        purpose,
    )
