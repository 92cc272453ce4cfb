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
from todm_sb.supernet.sandwich import Labels


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


def dev_batches(hparams: dict[str, Any], n: int) -> Iterator[tuple[Tensor, Tensor, Labels]]:
    """Features, their lengths and the labels of ``n`` batches of the dev set."""
    dataset = make_dataset(
        hparams["valid_csv"],
        load_tokenizer(hparams),
        lambda seconds: int(1000 * seconds),
        hparams["max_duration"],
    )
    options = make_loader_kwargs(dataset, hparams["max_batch_seconds"], seed=0)
    for batch in islice(DataLoader(dataset, **options), n):
        ids, shares = batch.tokens
        with torch.no_grad():
            features, n_features = hparams["features"].eval()(*batch.sig, epoch=99)
        yield features, n_features, Labels(ids, (shares * ids.shape[1]).round().long())
