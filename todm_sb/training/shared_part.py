"""From a batch to its trunk: what all subnets of a step, or of an evaluation, share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.sandwich import Labels, Trunk


def trunk_of(
    batch: SpeechBatch,
    features: nn.Module,
    model: Transducer,
    epoch: int,
    causal: bool,
    wav_augment: Any = None,
    feature_augment: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> tuple[Trunk, Labels]:
    """Features, augmented where that is asked for, and all that the subnets share.

    Args:
        batch: on the model's device.
        features: see :class:`todm_sb.nnet.features.SpeechFeatures`.
        model: the supernet.
        epoch: current epoch.
        causal: mode of the encoder.
        wav_augment: SpeechBrain's Augmenter of waveforms.
        feature_augment: SpeechBrain's Augmenter of features.

    Returns:
        The trunk and the targets.
    """
    wavs, wav_lens = batch.sig
    tokens, token_lens = batch.tokens
    if wav_augment is not None:
        wavs, wav_lens = wav_augment(wavs, wav_lens)
        tokens = wav_augment.replicate_labels(tokens)
        token_lens = wav_augment.replicate_labels(token_lens)
    frames, n_frames = features(wavs, wav_lens, epoch=epoch)
    if feature_augment is not None:
        frames, _ = feature_augment(frames, n_frames / frames.shape[1])
    n_tokens = (token_lens * tokens.shape[1]).round().long()
    trunk = Trunk.compute(model, frames, n_frames, tokens, causal)
    return trunk, Labels(tokens, n_tokens)
