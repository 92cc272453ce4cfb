"""From a batch to its trunk: what all subnets of a step, or of an evaluation, share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from speechbrain.augment.augmenter import Augmenter
from torch import Tensor, nn

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.distributed import update_statistics_with_nothing

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class SharedPart:
    """Computes the features, and all that the subnets share.

    Args:
        features: see :class:`todm_sb.nnet.features.SpeechFeatures`.
        model: the supernet.
        epoch_counter: SpeechBrain's; after some epochs the features' statistics stay fixed.
        wav_augment: of waveforms and their relative lengths, such as
            :class:`todm_sb.nnet.speed_perturb.SpeedPerturb` or SpeechBrain's Augmenter; or None.
        noise_augment: the same once more, of what the first has made, such as
            :class:`todm_sb.dataio.noise.AddNoise`, or None.
        feature_augment: the same of features, or None.
        augment_after: reference batches of audio without augmentation.
        mask_after: those without ``feature_augment``; None for ``augment_after``.
        views: of each utterance, after so many reference batches, once there is
            ``feature_augment``: copies that it augments apart.
    """

    def __init__(
        self,
        features: nn.Module,
        model: Transducer,
        epoch_counter: Any,
        *,
        wav_augment: Augment | None = None,
        noise_augment: Augment | None = None,
        feature_augment: Augment | None = None,
        augment_after: float = 0,
        mask_after: float | None = None,
        views: Callable[[float], int] = lambda batches: 1,
    ) -> None:
        self.features = features
        self.model = model
        self.epoch_counter = epoch_counter
        self.wav_augment = wav_augment
        self.noise_augment = noise_augment
        self.feature_augment = feature_augment
        self.augment_after = augment_after
        self.mask_after = augment_after if mask_after is None else mask_after
        self.views = views

    @classmethod
    def of(cls, features: nn.Module, model: Any, hparams: Mapping[str, Any]) -> SharedPart:
        """That of a recipe, with all of its augmentation.

        Args:
            features, model: of the recipe, or in their place.
            hparams: the recipe's keys.
        """
        return cls(
            features,
            model,
            hparams["epoch_counter"],
            wav_augment=hparams.get("wav_augment"),
            noise_augment=hparams.get("noise_augment"),
            feature_augment=hparams.get("feature_augment"),
            augment_after=hparams.get("augment_after", 0),
            mask_after=hparams.get("mask_after"),
            views=hparams["objective"].views,
        )

    def __call__(
        self, batch: SpeechBatch, causal: bool, batches: float | None = None
    ) -> tuple[Trunk, Labels]:
        """The trunk and the targets of a batch.

        Args:
            batch: on the model's device.
            causal: mode of the encoder.
            batches: reference batches so far; None where it is not for training.
        """
        features, n_frames, labels = self.inputs(batch, batches)
        trunk = Trunk.compute(self.model, features, n_frames, labels.ids, causal)
        return trunk, labels

    def inputs(
        self, batch: SpeechBatch, batches: float | None = None
    ) -> tuple[Tensor, Tensor, Labels]:
        """What goes into a network: (batch, T, n_features), the features; (batch,), their frames;
        the targets; all for each view, in float32 whatever the precision of training. Arguments
        as of :meth:`__call__`."""
        batches = -1 if batches is None else batches
        wavs, wav_lens = batch.sig
        tokens, token_lens = batch.tokens
        with torch.autocast(wavs.device.type, enabled=False):
            if batches >= self.augment_after and self.wav_augment is not None:
                wavs, wav_lens = self.wav_augment(wavs, wav_lens)
                if isinstance(self.wav_augment, Augmenter):  # it may have added copies
                    tokens, token_lens = map(
                        self.wav_augment.replicate_labels, (tokens, token_lens)
                    )
            if batches >= self.augment_after and self.noise_augment is not None:
                wavs, wav_lens = self.noise_augment(wavs, wav_lens)
            features, n_frames = self.features(wavs, wav_lens, epoch=self.epoch_counter.current)
            labels = Labels(tokens, (token_lens * tokens.shape[1]).round().long())
            if batches >= self.mask_after and self.feature_augment is not None:
                if (views := self.views(batches)) > 1:
                    features, n_frames = (
                        x.repeat_interleave(views, 0) for x in (features, n_frames)
                    )
                    labels = labels.repeated(views)
                features, _ = self.feature_augment(features, n_frames / features.shape[1])
        return features, n_frames, labels

    def nothing(self) -> None:
        """What a process does whose batch is empty while others compute theirs."""
        n_features = self.model.encoder.n_features
        epoch = self.epoch_counter.current
        update_statistics_with_nothing(self.features.normalizer, n_features, epoch)
