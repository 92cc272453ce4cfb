"""Filterbanks as ONNX models, for engines that have no features of their own."""

from __future__ import annotations

import math
from typing import Any

import onnx
import torch
from speechbrain.lobes.features import Fbank
from torch import Tensor

from todm_sb.export.graph import Graph
from todm_sb.nnet.features import make_fbank
from todm_sb.nnet.kaldi_fbank import FLOOR, PREEMPHASIS, KaldiFbank

# The file of one.
FEATURES = "features.onnx"


def features_model(fbank: dict[str, Any]) -> onnx.ModelProto:
    """From samples to what the encoder takes.

    Input ``samples`` (N, S), of full scale 1, utterances of one length, at least one sample;
    outputs ``x`` (N, T, features), raw, and ``x_lens`` (N,), whole numbers.

    Args:
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
    """
    g = Graph()
    samples = g.input("samples", "float", ["N", "S"])
    module = make_fbank(**fbank)
    if isinstance(module, KaldiFbank):
        x, n_frames = _kaldi(g, samples, module)
    else:
        x, n_frames = _speechbrain(g, samples, module)
    g.output("x", x, "float", ["N", "T", fbank["n_mels"]])
    g.output("x_lens", g("Expand", n_frames, g.size(samples, 0)), "int64", ["N"])
    return g.model("features")


def _kaldi(g: Graph, samples: str, module: KaldiFbank) -> tuple[str, str]:
    """:class:`KaldiFbank`: features, and frames as a tensor of one integer."""
    n, window, hop = g.size(samples, 1), module.window, module.hop
    if module.snip_edges:
        n_frames = g("Div", g("Max", g("Add", n, hop - window), 0), hop)
        at = _window_indices(g, g("Max", n_frames, 1), window, hop, first=0)
        at = g("Min", at, g("Sub", n, 1))
    else:
        n_frames = g("Div", g("Add", n, hop // 2), hop)
        first = hop // 2 - window // 2
        at = _window_indices(g, g("Max", n_frames, 1), window, hop, first)
        # Mirrored at both ends, there and back again.
        there_and_back = g("Mul", n, 2)
        at = g("Mod", at, there_and_back)
        at = g("Min", at, g("Sub", g("Sub", there_and_back, 1), at))
    windows = g("Gather", samples, at, axis=1)
    windows = g("Sub", windows, g("ReduceMean", windows, axes=[-1]))
    begin, others = g.slice(windows, 2, 0, 1), g.slice(windows, 2, 0, window - 1)
    previous = g("Concat", begin, others, axis=2)
    windows = g("Mul", g("Sub", windows, g("Mul", previous, PREEMPHASIS)), module.povey)
    energy = g("MatMul", _power(g, windows, window, module.n_fft), _filters(g, module.filters))
    return g("Log", g("Max", energy, FLOOR)), n_frames


def _speechbrain(g: Graph, samples: str, module: Fbank) -> tuple[str, str]:
    """SpeechBrain's ``Fbank``: features, and frames as a tensor of one integer."""
    stft, bank = module.compute_STFT, module.compute_fbanks
    n_fft, hop = stft.n_fft, stft.hop_length
    n_frames = g("Add", g("Div", g.size(samples, 1), hop), 1)
    # Centred on each multiple of the hop, with silence around the utterance.
    samples = g("Pad", samples, [0, n_fft // 2, 0, n_fft - n_fft // 2])
    windows = g("Gather", samples, _window_indices(g, n_frames, n_fft, hop, first=0), axis=1)
    left = (n_fft - stft.win_length) // 2
    right = n_fft - stft.win_length - left
    windows = g("Mul", windows, torch.nn.functional.pad(stft.window, (left, right)))
    # Without the logarithm, what the bank makes of each bin alone is its matrix.
    bank.log_mel, bins = False, torch.eye(bank.n_stft).unsqueeze(0)
    energy = g("MatMul", _power(g, windows, n_fft, n_fft), _filters(g, bank(bins)[0]))
    decibels = g("Mul", g("Log", g("Max", energy, bank.amin)), bank.multiplier / math.log(10))
    decibels = g("Sub", decibels, bank.multiplier * bank.db_multiplier)
    loudest = g("ReduceMax", decibels, axes=[-2, -1])
    return g("Max", decibels, g("Sub", loudest, bank.top_db)), n_frames


def _window_indices(g: Graph, n_frames: str, window: int, hop: int, first: int) -> str:
    """(T, window), the samples of each window."""
    starts = g("Mul", g("Range", 0, g("Squeeze", n_frames, [0]), 1), hop)
    return g("Add", g("Unsqueeze", starts, [1]), torch.arange(first, first + window))


def _power(g: Graph, windows: str, window: int, n_fft: int) -> str:
    """(N, T, window) -> (N, T, n_fft / 2 + 1)

    Two products with a Fourier matrix, which the engine looks up when it loads the file: faster
    than onnxruntime's DFT, and more exact where ``n_fft`` is no power of two.
    """
    turns = g("Mul", torch.arange(window).unsqueeze(1), torch.arange(n_fft // 2 + 1))
    at = g("Mod", turns, n_fft)
    angles = 2 * math.pi * torch.arange(n_fft, dtype=torch.float64) / n_fft
    squares = []
    for table in (angles.cos(), angles.sin()):
        part = g("MatMul", windows, g("Gather", table, at))
        squares.append(g("Mul", part, part))
    return g("Add", *squares)


def _filters(g: Graph, filters: Tensor) -> str:
    """A matrix of triangles, mostly zeros, which are not written."""
    at = filters.nonzero()
    zeros = g("ConstantOfShape", list(filters.shape))
    return g("ScatterND", zeros, at, filters[at[:, 0], at[:, 1]])
