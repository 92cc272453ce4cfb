import math

import pytest
import torch
from torchaudio.compliance import kaldi

from todm_sb.nnet.kaldi_fbank import KaldiFbank

# In frames of 25 ms each 10 ms at 16 kHz: whole windows, one sample less, one more.
LENGTHS = [400, 399 + 160, 400 + 160, 401 + 160, 8000, 7921]


def waves(lengths, sample_rate=16000):
    """Chirps in noise; in the padding of the shorter ones, anything."""
    batch = 0.5 * torch.randn(len(lengths), max(lengths) + 77)
    for row, n in enumerate(lengths):
        t = torch.arange(n) / sample_rate
        batch[row, :n] = 0.3 * torch.sin(2 * math.pi * (200 + 3000 * t) * t)
        batch[row, :n] += 0.01 * torch.randn(n)
    return batch


def reference(wav, sample_rate, n_mels, **options):
    return kaldi.fbank(
        wav.unsqueeze(0),
        sample_frequency=sample_rate,
        num_mel_bins=n_mels,
        dither=0.0,
        low_freq=options.pop("low_freq", 20.0),
        high_freq=options.pop("high_freq", -400.0),
        snip_edges=options.pop("snip_edges", False),
    )


@pytest.mark.parametrize("snip_edges", [False, True])
@pytest.mark.parametrize(("sample_rate", "n_mels"), [(16000, 80), (8000, 40)])
def test_each_utterance_of_a_batch_has_torchaudios_kaldi_features(sample_rate, n_mels, snip_edges):
    fbank = KaldiFbank(sample_rate, n_mels, snip_edges=snip_edges)
    wavs = waves(LENGTHS, sample_rate)
    features, n_frames = fbank(wavs, torch.tensor(LENGTHS))
    for row, n in enumerate(LENGTHS):
        expected = reference(wavs[row, :n], sample_rate, n_mels, snip_edges=snip_edges)
        assert n_frames[row] == len(expected) > 0
        torch.testing.assert_close(features[row, : n_frames[row]], expected, rtol=0, atol=1e-4)


def test_the_filters_edges_are_a_choice():
    wavs = waves([3000])
    features, _ = KaldiFbank(16000, 23, low_freq=60.0, high_freq=0.0)(wavs, torch.tensor([3000]))
    expected = reference(wavs[0, :3000], 16000, 23, low_freq=60.0, high_freq=0.0)
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-4)


def test_it_is_what_sherpa_hears():
    """kaldi-native-fbank is what sherpa-onnx computes features with."""
    native = pytest.importorskip("kaldi_native_fbank", reason="needs kaldi-native-fbank")
    options = native.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    wavs = waves([5000])
    online = native.OnlineFbank(options)
    online.accept_waveform(16000, wavs[0, :5000].tolist())
    online.input_finished()
    features, n_frames = KaldiFbank()(wavs, torch.tensor([5000]))
    assert online.num_frames_ready == n_frames.item()
    for t in range(n_frames.item()):
        expected = torch.tensor(online.get_frame(t))
        # Its own FFT rounds otherwise, which shows where a filter holds next to nothing.
        torch.testing.assert_close(features[0, t], expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("n", [1, 40, 79, 80, 130])
def test_an_utterance_shorter_than_a_window_is_mirrored_as_often_as_need_be(n):
    wav = waves([n])[:, :n]
    _, n_frames = KaldiFbank()(wav, torch.tensor([n]))
    assert n_frames.item() == (n + 80) // 160
    # Mirrored by hand, the first window's 400 samples begin 120 before the utterance.
    there_and_back = torch.cat([wav[0], wav[0].flip(0)])
    samples = torch.stack([there_and_back[i % (2 * n)] for i in range(-120, 280)])
    features, _ = KaldiFbank()(wav, torch.tensor([n]))
    expected = KaldiFbank(snip_edges=True)(samples.unsqueeze(0), torch.tensor([400]))[0]
    torch.testing.assert_close(features[:, :1], expected)


@pytest.mark.parametrize("n", [1, 399])
def test_without_a_whole_window_there_is_no_frame(n):
    features, n_frames = KaldiFbank(snip_edges=True)(torch.randn(1, n), torch.tensor([n]))
    assert n_frames.tolist() == [0]
    assert features.shape == (1, 1, 80)


def test_silence_is_finite():
    features, _ = KaldiFbank()(torch.zeros(1, 1600), torch.tensor([1600]))
    torch.testing.assert_close(features, torch.full((1, 10, 80), math.log(2.0**-23)))


def test_many_frames_are_computed_a_piece_at_a_time(monkeypatch):
    wavs, n_samples = waves([8000]), torch.tensor([8000])
    whole, _ = KaldiFbank()(wavs, n_samples)
    monkeypatch.setattr("todm_sb.nnet.kaldi_fbank.PIECE", 7)
    torch.testing.assert_close(KaldiFbank()(wavs, n_samples)[0], whole)
