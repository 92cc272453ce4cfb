"""Augmentation that a recipe asks for: whether it does what training needs of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from speechbrain.augment.augmenter import Augmenter

from todm_sb.dataio.batches import largest_growth
from todm_sb.utils.errors import ConfigError


def check_augmentation(hparams: Mapping[str, Any]) -> None:
    """Checks what may begin long after the first step, and would fail there.

    Args:
        hparams: a loaded recipe.

    Raises:
        ConfigError: if it cannot be called, changes what it may not, or gives no two views where
            the objective compares such.
    """
    if hparams["objective"].most_views > 1:
        _check_views(hparams.get("feature_augment"))
    for key in ("wav_augment", "noise_augment", "feature_augment"):
        augment = hparams.get(key)
        if augment is None:
            continue
        try:
            inspect.signature(getattr(augment, "forward", augment)).bind("audio", "lengths")
        except TypeError:
            raise ConfigError(
                f"{key}: {type(augment).__name__} does not take a batch and its lengths: put it "
                "into a speechbrain.augment.augmenter.Augmenter, among its augmentations"
            ) from None
        if hasattr(augment, "check"):
            augment.check()
        if key != "wav_augment" and largest_growth(augment) > 1:
            raise ConfigError(
                f"{key} makes speech longer, or adds copies of utterances (speeds, "
                "concat_original, repeat_augment or parallel_augment): only wav_augment can"
            )


def _check_views(augment: Any) -> None:
    """They differ, and frames of the same number are of the same time."""
    if augment is None:
        raise ConfigError(
            "objective: consistency_weight compares two views that feature_augment makes: set "
            "feature_augment, or consistency_weight to 0"
        )
    parts = augment.augmentations.values() if isinstance(augment, Augmenter) else [augment]
    if any(getattr(part, "time_warp", 0) for part in parts):
        raise ConfigError(
            "objective: consistency_weight compares two views frame by frame, but time_warp of "
            "feature_augment moves the frames of each by itself: set one of them to 0"
        )
