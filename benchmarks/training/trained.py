"""A trained recipe's network and batches of its dev set, for scripts that look into it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor
from torch.utils.data import DataLoader

from todm_sb.dataio.pipeline import make_dataset, make_loader_kwargs
from todm_sb.supernet.trunk import Labels


def load_run(folder: Path) -> dict[str, Any]:
    """The hyperparameters of a run, its network in evaluation mode and with the newest weights."""
    with (folder / "hyperparams.yaml").open() as file:
        hparams = load_hyperpyyaml(file)
    checkpoint = hparams["checkpointer"].recover_if_possible()
    print(f"{folder.name}, {'untrained' if checkpoint is None else checkpoint.meta}")
    hparams["model"].eval()
    return hparams


def load_tokenizer(hparams: dict[str, Any]) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer of a run."""
    name = f"{hparams['vocab_size']}_{hparams['tokenizer_type']}.model"
    return sentencepiece.SentencePieceProcessor(f"{hparams['tokenizer_folder']}/{name}")


def batches(
    hparams: dict[str, Any], n: int, manifest: str = "valid_csv", augment: bool = False
) -> Iterator[tuple[Tensor, Tensor, Labels]]:
    """Features, their lengths and the labels of ``n`` batches of the dev set.

    Args:
        hparams: from :func:`load_run`.
        n: batches.
        manifest: the key of another manifest.
        augment: as in training.
    """
    dataset = make_dataset(
        hparams[manifest],
        load_tokenizer(hparams),
        lambda seconds: int(1000 * seconds),
        hparams["max_duration"],
    )
    options = make_loader_kwargs(dataset, hparams["max_batch_seconds"], seed=0)
    for batch in islice(DataLoader(dataset, **options), n):
        ids, shares = batch.tokens
        wavs, lengths = batch.sig
        if augment:
            wavs, lengths = hparams["wav_augment"](wavs, lengths)
        with torch.no_grad():
            features, n_features = hparams["features"].eval()(wavs, lengths, epoch=99)
        if augment:
            features, _ = hparams["feature_augment"](features, n_features / features.shape[1])
        yield features, n_features, Labels(ids, (shares * ids.shape[1]).round().long())
