"""A run's network and the trunks of its batches, for scripts that look into it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from todm_sb.dataio.faults import TRAIN
from todm_sb.dataio.pipeline import make_loader_kwargs
from todm_sb.dataio.split import read_split
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.runs import load_hparams, run_tokenizer
from todm_sb.training.shared_part import SharedPart


def load_newest(folder: Path) -> dict[str, Any]:
    """The hparams of a run, its network in evaluation mode and with the newest weights.

    Raises:
        ConfigError: see :func:`todm_sb.training.runs.load_hparams`.
    """
    hparams = load_hparams(folder)
    checkpoint = hparams["checkpointer"].recover_if_possible()
    print(f"{folder.name}, {'untrained' if checkpoint is None else checkpoint.meta}")
    hparams["model"].eval()
    hparams["features"].eval()
    return hparams


def batches(
    hparams: dict[str, Any], n: int, manifest: str = "valid_csv", augment: bool = False
) -> Iterator[tuple[Trunk, Labels]]:
    """The trunks and targets of ``n`` batches of the dev set.

    Args:
        hparams: from :func:`load_newest`.
        n: batches; fewer where the data have no more.
        manifest: the key of another manifest.
        augment: as in training.
    """
    dataset = read_split(hparams, run_tokenizer(hparams), hparams[manifest], TRAIN)
    keys = ("wav_augment", "noise_augment", "feature_augment") if augment else ()
    augmenters = {key: hparams.get(key) for key in keys}
    shared_part = SharedPart(
        hparams["features"], hparams["model"], hparams["epoch_counter"], **augmenters
    )
    options = make_loader_kwargs(dataset, hparams["max_batch_seconds"], seed=0)
    for batch in islice(DataLoader(dataset, **options), n):
        yield shared_part(batch, causal=False, batches=0)
