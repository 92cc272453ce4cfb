"""From waveforms to normalised features with exact lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from speechbrain.lobes.features import Fbank
from torch import Tensor, nn

from todm_sb.nnet.hop import hop_of, samples_of
from todm_sb.nnet.kaldi_fbank import KaldiFbank, whole_samples
from todm_sb.nnet.masking import Count, frame_mask
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import flag, integer, number, one_of

# What the arguments of make_fbank can be.
FBANK_CHECKS = {
    "sample_rate": integer(1000, 384_000),
    "n_mels": integer(1, 1024),
    "n_fft": integer(16, 16384),
    "win_length": number(1, 1000),
    "hop_length": number(1, 1000),
}
FBANK_OPTION_CHECKS = {"fbank_kind": one_of("speechbrain", "kaldi"), "snip_edges": flag}


def check_hop(options: Mapping[str, Any]) -> None:
    """Checks that every filterbank takes the hop for the same number of samples, and that no sample
    lies between two windows.

    Args:
        options: of :func:`make_fbank`.

    Raises:
        ConfigError: if that is not so.
    """
    rate, hop = options["sample_rate"], options["hop_length"]
    if hop_of(options) != whole_samples(hop, rate):
        raise ConfigError(
            f"hop_length: {rate * hop / 1000:g} samples from frame to frame, not a whole number"
        )
    if hop > options["win_length"]:
        raise ConfigError(
            f"hop_length {hop:g} is longer than win_length "
            f"{options['win_length']:g}: what lies between two windows would not be heard"
        )


def check_window(options: Mapping[str, Any]) -> None:
    """Checks that the FFT holds the window.

    Args:
        options: of :func:`make_fbank`.

    Raises:
        ConfigError: if it does not.
    """
    window = samples_of(options["win_length"], options["sample_rate"])
    if window > options["n_fft"]:
        raise ConfigError(f"a window of {window} samples is longer than n_fft {options['n_fft']}")


def check_exportable(normalizer: Any) -> None:
    """Checks that an export can hold how features are normalised.

    Args:
        normalizer: a :class:`speechbrain.processing.features.InputNormalization`, or another.

    Raises:
        ConfigError: if it cannot.
    """
    kind = getattr(normalizer, "norm_type", None)
    if kind not in ("global", "sentence") or not normalizer.std_norm:
        raise ConfigError("an export can hold norm_type global or sentence, with std_norm")


def empty_filters(fbank: nn.Module) -> int:
    """Mel filters so narrow that no point of the spectrum lies in them: their feature is constant.

    Args:
        fbank: of :func:`make_fbank`.
    """
    if isinstance(fbank, KaldiFbank):
        weights = fbank.filters.T
    else:
        banks: Any = fbank.compute_fbanks
        distance = (banks.all_freqs_mat - banks.f_central[:, None]).abs()
        weights = (1 - distance / banks.band[:, None]).clamp(min=0)
    return int((weights.sum(1) == 0).sum())


def make_fbank(
    sample_rate: int,
    n_mels: int,
    n_fft: int,
    win_length: float,
    hop_length: float,
    fbank_kind: str = "speechbrain",
    snip_edges: bool = False,
) -> nn.Module:
    """A filterbank from plain types, so that a YAML or a bundle chooses it by its keys.

    Args:
        sample_rate: in Hz.
        n_mels: mel filters.
        n_fft: points of SpeechBrain's FFT; Kaldi's is the power of two that holds a window.
        win_length: window in milliseconds.
        hop_length: milliseconds between windows.
        fbank_kind: ``speechbrain`` for SpeechBrain's own, ``kaldi`` for :class:`KaldiFbank`, which
            streaming and sherpa-onnx need.
        snip_edges: of Kaldi's.

    Returns:
        The filterbank, which keeps these arguments as ``options``.

    Raises:
        ConfigError: on an unknown kind, or on ``snip_edges`` without Kaldi's.
    """
    options = dict(locals())
    fbank: Any  # its ``options`` are no parameter or module
    if fbank_kind == "kaldi":
        fbank = KaldiFbank(sample_rate, n_mels, win_length, hop_length, snip_edges=snip_edges)
    elif fbank_kind != "speechbrain":
        raise ConfigError(f"fbank_kind must be speechbrain or kaldi, not {fbank_kind!r}")
    elif snip_edges:
        raise ConfigError("snip_edges is an option of fbank_kind: kaldi")
    else:
        fbank = Fbank(
            sample_rate=sample_rate,
            n_mels=n_mels,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
        )
    fbank.options = options
    return fbank


class SpeechFeatures(nn.Module):
    """A filterbank and SpeechBrain's normaliser, with frames counted exactly.

    SpeechBrain passes lengths as fractions of the longest utterance; a frame count rounded from
    a fraction depends on what an utterance is batched with. Here it is taken from the samples.

    Args:
        fbank: :class:`KaldiFbank`, or (batch, samples) -> (batch, frames, features), one frame at
            each multiple of ``hop`` up to the end, e.g. :class:`speechbrain.lobes.features.Fbank`.
        normalizer: a :class:`speechbrain.processing.features.InputNormalization`.
        hop: samples between frames.
    """

    def __init__(self, fbank: nn.Module, normalizer: nn.Module, hop: int) -> None:
        super().__init__()
        self.fbank: Any = fbank
        self.normalizer: Any = normalizer
        self.hop = int(hop)  # a YAML's arithmetic makes 200.0 of 16000 * 12.5 // 1000

    def n_frames(self, n_samples: Count) -> Count:
        """Frames of utterances of so many samples (integers); 0 where there is no sample."""
        if isinstance(self.fbank, KaldiFbank):
            return self.fbank.n_frames(n_samples)
        return (n_samples // self.hop + 1) * (n_samples > 0)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor, epoch: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Extracts and normalises features; in training mode also updates the statistics.

        Args:
            wavs: (batch, samples); those behind an utterance's end are not heard.
            wav_lens: (batch,), lengths as fractions of ``samples``.
            epoch: current epoch of training, after some of which the statistics stay fixed.

        Returns:
            Features (batch, frames, features), float32, and the lengths in frames (integers), 0
            where there is no sample.
        """
        n_samples = (wav_lens.double() * wavs.shape[1]).round().long()
        if not wavs.shape[1]:
            wavs = F.pad(wavs, (0, 1))  # a sample that is nobody's: filterbanks need one
        with torch.autocast(wavs.device.type, enabled=False):
            if isinstance(self.fbank, KaldiFbank):
                features, n_frames = self.fbank(wavs.float(), n_samples)
            else:
                # It hears beyond an utterance's end: what is there has to be silence.
                own = frame_mask(n_samples, wavs.shape[1]).squeeze(2)
                features = self.fbank(wavs.float().masked_fill(~own, 0.0))
                n_frames = self.n_frames(n_samples).clamp(max=features.shape[1])
            # SpeechBrain counts a frame that the fraction reaches by 1e-6, which rounding does.
            shares = (n_frames - 0.5) / features.shape[1]
            features = self.normalizer(features, shares, epoch=epoch)
        return features, n_frames

    def chunk(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a stream, chunk by chunk: any chunking gives the frames of the whole.

        Needs a :class:`KaldiFbank` with ``snip_edges``.

        Args:
            samples: (batch, samples), what the last call left over and the new chunk.

        Returns:
            Features (batch, frames, features), of any number of frames or none, and the samples
            that are left over for the next call.
        """
        fbank = self.fbank
        n_frames = fbank.n_frames(samples.shape[1])
        left_over = samples[:, n_frames * fbank.hop :]
        if not n_frames or not len(samples):
            return samples.new_zeros(len(samples), n_frames, fbank.n_mels), left_over
        with torch.autocast(samples.device.type, enabled=False):
            features = fbank.of_windows(samples.float().unfold(1, fbank.window, fbank.hop))
            return self.normalizer(features), left_over
