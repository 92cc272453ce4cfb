"""One exported subnet on three engines, each as a function from samples to text.

Each runs on one thread and takes an utterance as it comes from a microphone: features, encoder and
greedy search are all the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import sherpa_onnx
import torch

from todm_sb.inference import SubnetASR
from todm_sb.inference.onnx import OnnxASR

# Samples (float32, full scale 1), at the network's sampling rate -> words.
Engine = Callable[[np.ndarray], str]


def pytorch(folder: Path) -> Engine:
    """:class:`SubnetASR` from a bundle."""
    return _batch_of_one(SubnetASR.from_bundle(folder))


def onnxruntime(folder: Path) -> Engine:
    """:class:`OnnxASR`: our features and search around onnxruntime's sessions."""
    return _batch_of_one(OnnxASR(folder))


def sherpa(folder: Path, sample_rate: int, n_mels: int) -> Engine:
    """sherpa-onnx as it comes from PyPI, nothing of ours but the exported folder."""
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        *(str(folder / name) for name in ("encoder.onnx", "decoder.onnx", "joiner.onnx")),
        tokens=str(folder / "tokens.txt"),
        num_threads=1,
        sample_rate=sample_rate,
        feature_dim=n_mels,
    )

    def transcribe(samples: np.ndarray) -> str:
        stream = recognizer.create_stream()
        stream.accept_waveform(sample_rate, samples)
        recognizer.decode_stream(stream)
        return stream.result.text

    return transcribe


def _batch_of_one(asr: SubnetASR | OnnxASR) -> Engine:
    def transcribe(samples: np.ndarray) -> str:
        words, _ = asr.transcribe_batch(torch.from_numpy(samples).unsqueeze(0), torch.ones(1))
        return words[0]

    return transcribe
