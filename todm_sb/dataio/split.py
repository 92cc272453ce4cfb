"""Which utterances the splits of a run have: one rule for training, validation, test and search."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.audio import Conversion
from todm_sb.dataio.check import EVALUATE, TRAIN
from todm_sb.dataio.pipeline import SpeechDataset, make_dataset
from todm_sb.dataio.reading import reading_of


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
    folder, tests = Path(hparams["output_folder"]), manifests_of_tests(hparams)
    train, valid = hparams["train_csv"], hparams["valid_csv"]
    # Those of different folders may have the same name.
    stems = Counter(Path(csv).stem for csv in (train, valid, *tests.values()))

    def split(csv: str, purpose: str, kind: str) -> SpeechDataset:
        stem = Path(csv).stem
        name = stem if stems[stem] == 1 else f"{kind}_{stem}"
        return read_split(hparams, tokenizer, csv, purpose, folder / f"faults_{name}.csv")

    return Splits(
        split(train, TRAIN, "train"),
        split(valid, EVALUATE, "valid"),
        {name: split(csv, EVALUATE, "test") for name, csv in tests.items()},
    )


def manifests_of_tests(hparams: Mapping[str, Any]) -> dict[str, str]:
    """The manifests of a run's test sets, by name.

    Args:
        hparams: of the recipe: those of ``test_splits`` are in ``manifests``, those that
            ``test_csvs`` names are called by their file names.
    """
    named = {name: f"{hparams['manifests']}/{name}.csv" for name in hparams.get("test_splits", [])}
    return named | {Path(csv).stem: csv for csv in own_tests(hparams)}


def own_tests(settings: Mapping[str, Any]) -> list[str]:
    """The manifests that ``test_csvs`` names, which is one, a list of them, or nothing.

    Args:
        settings: of a recipe.
    """
    csvs = settings.get("test_csvs") or []
    return [os.path.expanduser(csv) for csv in ([csvs] if isinstance(csvs, str) else csvs)]


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
        Conversion(*(hparams.get(key, False) for key in ("resample", "mixdown"))),
        reading_of(hparams),
    )
