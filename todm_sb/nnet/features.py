"""From waveforms to normalised features with exact lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpeechFeatures(nn.Module):
    """A SpeechBrain feature extractor and normaliser that keep count of frames.

    SpeechBrain passes lengths as fractions of the longest utterance; a frame count rounded from
    a fraction depends on what an utterance is batched with. Here it is taken from the samples.

    Args:
        fbank: (batch, samples) -> (batch, frames, features), one frame at each multiple of
            ``hop`` up to the end, e.g. :class:`speechbrain.lobes.features.Fbank`.
        normalizer: a :class:`speechbrain.processing.features.InputNormalization`.
        hop: samples between frames.
    """

    def __init__(self, fbank: nn.Module, normalizer: nn.Module, hop: int) -> None:
        super().__init__()
        self.fbank = fbank
        self.normalizer = normalizer
        self.hop = hop

    def forward(
        self, wavs: Tensor, wav_lens: Tensor, epoch: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Extracts and normalises features; in training mode also updates the statistics.

        Args:
            wavs: (batch, samples).
            wav_lens: (batch,), lengths as fractions of ``samples``.
            epoch: current epoch of training, after some of which the statistics stay fixed.

        Returns:
            Features (batch, frames, features), float32, and the lengths in frames (integers).
        """
        n_samples = (wav_lens.double() * wavs.shape[1]).round().long()
        with torch.autocast(wavs.device.type, enabled=False):
            features = self.fbank(wavs.float())
            n_frames = (n_samples // self.hop + 1).clamp(max=features.shape[1])
            features = self.normalizer(features, n_frames / features.shape[1], epoch=epoch)
        return features, n_frames
