"""Log mel filterbank energies by Kaldi's conventions, for batches of padded utterances."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

from todm_sb.nnet.masking import Count

PREEMPHASIS = 0.97
# Kaldi's floor of a filter's energy.
FLOOR = torch.finfo(torch.float32).eps
# Windows that are computed together.
PIECE = 4096


def whole_samples(milliseconds: float, sample_rate: int) -> int:
    """Samples of a window or hop, rounded as Kaldi rounds them: down."""
    return int(sample_rate * milliseconds / 1000)


class KaldiFbank(nn.Module):
    """The features of Kaldi's ``compute-fbank-feats`` without dither.

    They are what torchaudio's ``compliance.kaldi.fbank`` and kaldi-native-fbank compute, and so
    what sherpa-onnx hears on every device. Of each window: the mean is taken off, then
    preemphasis, Povey's window, and mel filters over the power spectrum. No frame depends on
    samples outside its window, hence they can be computed while speech still comes in.
    (SpeechBrain's ``Fbank`` clips at 80 dB below the loudest frame of the whole utterance.)

    The defaults are those of sherpa-onnx.

    Args:
        sample_rate: in Hz.
        n_mels: mel filters.
        win_length: window in milliseconds.
        hop_length: milliseconds between windows.
        low_freq: lower edge of the first filter in Hz.
        high_freq: upper edge of the last filter in Hz; if not positive, as seen from half the
            sampling rate.
        snip_edges: take only windows that lie wholly within the utterance, as streaming needs it.
            Otherwise there is one window for each hop, centred on it, and the utterance is
            mirrored at its ends.
    """

    filters: Tensor
    povey: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 80,
        win_length: float = 25,
        hop_length: float = 10,
        low_freq: float = 20.0,
        high_freq: float = -400.0,
        snip_edges: bool = False,
    ) -> None:
        super().__init__()
        self.window = whole_samples(win_length, sample_rate)
        self.hop = whole_samples(hop_length, sample_rate)
        self.n_mels = n_mels
        self.snip_edges = snip_edges
        self.n_fft = 1 << (self.window - 1).bit_length()
        filters, _ = get_mel_banks(
            n_mels, self.n_fft, sample_rate, low_freq, high_freq, 100.0, -500.0, 1.0
        )
        # Of the spectrum's n_fft / 2 + 1 bins, no filter holds the last.
        filters = nn.functional.pad(filters, (0, 1)).T
        self.register_buffer("filters", filters.contiguous(), persistent=False)
        povey = torch.hann_window(self.window, periodic=False).pow(0.85)
        self.register_buffer("povey", povey, persistent=False)

    def n_frames(self, n_samples: Count) -> Count:
        """Frames of utterances of so many samples (integers)."""
        if self.snip_edges:
            return ((n_samples - self.window) // self.hop + 1) * (n_samples >= self.window)
        return (n_samples + self.hop // 2) // self.hop

    def forward(self, wavs: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the features of a batch; each utterance's are those it has alone.

        Args:
            wavs: (batch, samples), of full scale 1.
            n_samples: (batch,), integer samples of each utterance.

        Returns:
            (batch, frames, n_mels), at least one frame, and the integer frames of each utterance.
            Padded frames hold no meaning.
        """
        n_frames = self.n_frames(n_samples)
        longest = max(1, self.n_frames(wavs.shape[1]))
        reach = (longest - 1) * self.hop + self.window
        if self.snip_edges:
            wavs = nn.functional.pad(wavs, (0, max(0, reach - wavs.shape[1])))[:, :reach]
        else:
            wavs = self._mirror(wavs, n_samples, reach)
        windows = wavs.unfold(1, self.window, self.hop)
        # Some at a time: windows overlap, and their spectra are longer still.
        return torch.cat([self.of_windows(w) for w in windows.split(PIECE, dim=1)], 1), n_frames

    def _mirror(self, wavs: Tensor, n_samples: Tensor, reach: int) -> Tensor:
        """``reach`` samples of which the first lies half a window before the first hop's centre,
        the utterance mirrored at its ends as often as need be."""
        first = self.hop // 2 - self.window // 2
        at = torch.arange(first, first + reach, device=wavs.device)
        n = n_samples.clamp(min=1).unsqueeze(1)
        at = at % (2 * n)
        return wavs.gather(1, torch.where(at < n, at, 2 * n - 1 - at))

    def of_windows(self, windows: Tensor) -> Tensor:
        """(..., window) samples -> (..., n_mels)."""
        windows = windows - windows.mean(-1, keepdim=True)
        previous = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        windows = (windows - PREEMPHASIS * previous) * self.povey
        power = torch.fft.rfft(windows, self.n_fft).abs().square()
        return (power @ self.filters).clamp(min=FLOOR).log()
