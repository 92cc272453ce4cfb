"""The exported filterbank hears what Python's hears."""

import math

import numpy as np
import pytest
import torch

from todm_sb.nnet.features import SpeechFeatures, make_fbank

pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from todm_sb.export.onnx_features import features_model  # noqa: E402

KINDS = [
    {"sample_rate": 8000, "n_mels": 64, "n_fft": 256, "win_length": 25},
    {"sample_rate": 16000, "n_mels": 80, "n_fft": 400, "win_length": 25},
    {"sample_rate": 16000, "n_mels": 40, "n_fft": 512, "win_length": 31},
    {"sample_rate": 8000, "n_mels": 40, "n_fft": 256, "win_length": 25, "fbank_kind": "kaldi"},
    {"sample_rate": 16000, "n_mels": 80, "n_fft": 512, "win_length": 25, "fbank_kind": "kaldi"},
]
KINDS.append({**KINDS[-1], "snip_edges": True})
# In samples: shorter than a window, whole windows, one sample less and one more.
LENGTHS = [1, 79, 100, 399, 400, 401, 719, 720, 721, 16000]


class _Raw(torch.nn.Identity):
    """In place of the normaliser, which is part of the encoder."""

    def forward(self, features, *_, **__):
        return features


def session(fbank):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = features_model(fbank).SerializeToString()
    return onnxruntime.InferenceSession(model, options)


def chirps(n_samples, sample_rate, n=2):
    t = torch.arange(n_samples) / sample_rate
    sweep = torch.sin(2 * math.pi * (200 + 300 * t) * t) * torch.sin(9 * t) ** 2
    return 0.3 * sweep + 0.01 * torch.randn(n, n_samples) + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_pythons_at_any_length(kind):
    fbank = {**kind, "hop_length": 10}
    features = SpeechFeatures(make_fbank(**fbank), _Raw(), fbank["sample_rate"] // 100)
    exported = session(fbank)
    for n in LENGTHS:
        wavs = chirps(n, fbank["sample_rate"])
        expected, n_frames = features(wavs, torch.ones(2))
        x, x_lens = exported.run(None, {"samples": wavs.numpy()})
        assert x_lens.tolist() == n_frames.tolist()
        assert x.shape == expected.shape
        frames = slice(0, int(n_frames[0]))
        np.testing.assert_allclose(x[:, frames], expected[:, frames], rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_finite(kind):
    fbank = {**kind, "hop_length": 10}
    x, _ = session(fbank).run(None, {"samples": np.zeros((1, 1600), np.float32)})
    expected = make_fbank(**fbank)
    wavs = torch.zeros(1, 1600)
    silence = expected(wavs, torch.tensor([1600]))[0] if "fbank_kind" in kind else expected(wavs)
    np.testing.assert_allclose(x, silence, rtol=0, atol=1e-4)


def test_the_file_is_small():
    """The Fourier matrix of 0.8 MB and the filters' zeros are not in it."""
    assert len(features_model({**KINDS[4], "hop_length": 10}).SerializeToString()) < 30_000
