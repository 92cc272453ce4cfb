"""Speech that is a little slower or faster (Ko et al. 2015, "Audio augmentation for speech
recognition")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn

from todm_sb.utils.errors import ConfigError, quoted


class SpeedPerturb(nn.Module):
    """Resamples a batch to one speed of several, on the device where it lies.

    The speed is drawn on the host, by torch's default generator, so that no device is waited for.
    By itself, or among the augmentations of SpeechBrain's ``Augmenter``.

    Args:
        speeds: percent of the original speed, whole numbers.

    Raises:
        ConfigError: if there is none, or one is no such number.
    """

    def __init__(self, speeds: Sequence[int] = (90, 95, 100, 105, 110)) -> None:
        super().__init__()
        if not speeds or not all(type(speed) is int and 1 <= speed <= 1000 for speed in speeds):
            raise ConfigError(
                f"speeds must be whole numbers of percent, such as [90, 100, 110], not "
                f"{quoted(speeds)}"
            )
        self.speeds = tuple(speeds)

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A batch at one speed.

        Args:
            wavs: (batch, samples).
            lengths: (batch,), of the utterances, relative to the longest.

        Returns:
            (batch, samples * 100 / speed), and the lengths, which stay what they are.
        """
        speed = self.speeds[int(torch.randint(len(self.speeds), ()))]
        # The ratio alone matters to resampling; of small numbers it takes a short filter.
        return torchaudio.functional.resample(wavs, speed, 100), lengths
