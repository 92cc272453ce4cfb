"""Noise of a folder, such as MUSAN (Snyder et al. 2015, arXiv:1510.08484), under speech."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from todm_sb.dataio.audio import SUFFIXES, SampleReader, sound_file
from todm_sb.dataio.resampling import convertible, resampled
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.folders import files_below
from todm_sb.utils.schema import number, sequence

# The lowest and the highest, in dB.
Snr = tuple[float, float]


class _File(NamedTuple):
    path: Path
    frames: int
    rate: int


class AddNoise(nn.Module):
    """Adds stretches of noise files to some utterances of a batch.

    Called as SpeechBrain's augmentations are. Its own ``AddNoise`` goes through the files in an
    order that a checkpoint does not keep; here all is drawn anew at each call from torch's
    generator, on the host, so that a resumed run hears what an unbroken one does. A device is never
    waited for.

    Args:
        folder: audio files at any depth, of any sampling rate and number of channels. Looked into
            by :meth:`check`, or at the first call.
        sample_rate: of the speech, in Hz.
        share: of the utterances that get noise, in [0, 1].
        snr: lowest and highest ratio, in dB, of an utterance's power to its noise's; uniform.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(
        self,
        folder: str | Path,
        sample_rate: int,
        share: float = 0.5,
        snr: Snr = (10.0, 20.0),
    ) -> None:
        super().__init__()
        number(0, 1)(share, "share of noise")
        sequence(number(-100, 100), 2, 2)(snr, "snr")
        if snr[0] > snr[1]:
            raise ConfigError(f"snr must ascend: {list(snr)}")
        self.folder, self.sample_rate = Path(folder), sample_rate
        self.share, self.snr = share, snr

    def check(self) -> None:
        """Looks into the folder.

        Raises:
            ConfigError: if there is no such folder, or no audio in it.
            DataError: if a file cannot be read.
        """
        self._files  # noqa: B018

    def forward(self, wavs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """A batch with noise.

        Args:
            wavs: (batch, samples).
            lengths: (batch,), of the utterances, relative to ``samples``.

        Returns:
            (batch, samples), of which padding is as it was, and ``lengths``.

        Raises:
            DataError: if a file cannot be read any more, or holds what is no finite number.
        """
        batch, n = wavs.shape
        noisy = torch.rand(batch) < self.share
        decibels = torch.empty(batch, 1).uniform_(*self.snr)
        noise = torch.zeros(batch, n)
        for i in noisy.nonzero().flatten().tolist():
            noise[i] = torch.from_numpy(self._stretch(n))
        noise = noise.to(wavs.device, non_blocking=True)
        decibels = decibels.to(wavs.device, non_blocking=True)
        own = torch.arange(n, device=wavs.device) < (lengths * n).round().unsqueeze(1)
        noise = noise * own
        energy = (wavs * own).square().sum(1, keepdim=True)
        # Where the noise is silent, it stays so.
        relative = energy / noise.square().sum(1, keepdim=True).clamp(min=1e-20)
        return wavs + noise * (relative * 10 ** (-decibels / 10)).sqrt(), lengths

    @cached_property
    def _files(self) -> list[_File]:
        if not self.folder.is_dir():
            raise ConfigError(f"noise_folder: there is no folder {self.folder}")
        paths = sorted(x for x in files_below(self.folder) if x.suffix.lower() in SUFFIXES)
        files = [self._look(path) for path in paths]
        if not files:
            raise ConfigError(f"noise_folder: {self.folder} has no audio files")
        return files

    def _look(self, path: Path) -> _File:
        try:
            with sound_file(path) as file:
                frames, rate = file.frames, file.samplerate
        except (OSError, soundfile.SoundFileError) as error:
            raise DataError(f"noise_folder: {path} cannot be read ({error})") from None
        if not frames:
            raise DataError(f"noise_folder: {path} is empty: remove it")
        if not convertible(rate, self.sample_rate):
            raise DataError(
                f"noise_folder: {path} has {rate} Hz, which is not converted to "
                f"{self.sample_rate} Hz: resample it"
            )
        return _File(path, frames, rate)

    def _stretch(self, n: int) -> np.ndarray:
        """(n,), float32, from anywhere in any file; one that is too short is repeated."""
        path, frames, rate = self._files[int(torch.randint(len(self._files), ()))]
        wanted = math.ceil(n * rate / self.sample_rate)
        first = int(torch.randint(max(1, frames - wanted + 1), ()))
        try:
            with sound_file(path) as file:
                samples = SampleReader(file).read(first, wanted)
        except (OSError, soundfile.SoundFileError) as error:
            raise DataError(f"noise_folder: {path} cannot be read ({error})") from None
        if not len(samples):
            raise DataError(f"noise_folder: {path} has become shorter")
        samples = samples.mean(1) if samples.ndim > 1 else samples
        samples = resampled(samples, rate, self.sample_rate)
        if not np.isfinite(samples).all():
            raise DataError(
                f"noise_folder: {path} has samples that are not finite numbers: remove it"
            )
        return np.resize(samples, n)


def noise_of(
    folder: str | Path | None, sample_rate: int, share: float = 0.5, snr: Snr = (10.0, 20.0)
) -> AddNoise | None:
    """:class:`AddNoise`, for a recipe that may name no folder.

    Args:
        folder: None for no noise; this, ``sample_rate``, ``share`` and ``snr`` see there.

    Raises:
        ConfigError: if an argument is out of range.
    """
    return None if folder is None else AddNoise(folder, sample_rate, share, snr)
