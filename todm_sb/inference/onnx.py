"""A recogniser on onnxruntime alone, for tests and benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from todm_sb.dataio.detokenizer import Detokenizer
from todm_sb.nnet.features import SpeechFeatures, hop_of, make_fbank
from todm_sb.utils.errors import ConfigError


class OnnxASR:
    """Transcribes speech with a folder that :func:`todm_sb.export.onnx.export_onnx` wrote.

    Args:
        folder: of the models.
        n_threads: of onnxruntime.

    Raises:
        ConfigError: if a model or ``tokens.txt`` is missing.
    """

    def __init__(self, folder: str | Path, n_threads: int = 1) -> None:
        folder = Path(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self.encoder, self.decoder, self.joiner = (
            _session(folder / f"{name}.onnx", options) for name in ("encoder", "decoder", "joiner")
        )
        tokens = _existing(folder / "tokens.txt").read_bytes().decode()
        self._detokenizer = Detokenizer.of_tokens(tokens)
        metadata = self.encoder.get_modelmeta().custom_metadata_map
        self.max_symbols = int(metadata["max_symbols"])
        fbank = json.loads(metadata["fbank"])
        self.sample_rate = fbank["sample_rate"]
        # The graph normalises.
        self._features = SpeechFeatures(make_fbank(**fbank), _Identity(), hop_of(fbank))
        self._states = [x for x in self.decoder.get_inputs() if x.name != "y"]
        self._context = self.decoder.get_inputs()[0].shape[1]

    def transcribe_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor
    ) -> tuple[list[str], list[list[int]]]:
        """As of :meth:`todm_sb.inference.SubnetASR.transcribe_batch`."""
        if not len(wavs):
            return [], []
        tokens = self.search(*self.encode(wavs, wav_lens))
        return [self.text(ids) for ids in tokens], tokens

    def encode(self, wavs: torch.Tensor, wav_lens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(batch, samples) and fractions -> (batch, T, d_joint) and integer lengths."""
        features, lengths = self._features(wavs, wav_lens)
        return self.encoder.run(None, {"x": features.numpy(), "x_lens": lengths.numpy()})

    def search(self, encoded: np.ndarray, n_frames: np.ndarray) -> list[list[int]]:
        """Greedy search, frame by frame."""
        batch = len(encoded)
        tokens: list[list[int]] = [[] for _ in range(batch)]
        labels = np.zeros((batch, self._context), np.int64)
        feeds = {x.name: np.zeros((batch, *x.shape[1:]), np.float32) for x in self._states}
        output, *states = self.decoder.run(None, {"y": labels, **feeds})
        for t in range(encoded.shape[1]):
            active = t < n_frames
            for _ in range(self.max_symbols):
                (logits,) = self.joiner.run(
                    None, {"encoder_out": encoded[:, t], "decoder_out": output}
                )
                label = logits.argmax(1)
                active = active & (label != 0)
                if not active.any():
                    break
                for row in np.flatnonzero(active):
                    tokens[row].append(int(label[row]))
                    labels[row] = [*labels[row, 1:], label[row]]
                    for feed, state in zip(feeds.values(), states, strict=True):
                        feed[row] = state[row]
                new_output, *new_states = self.decoder.run(None, {"y": labels, **feeds})
                output[active] = new_output[active]
                for state, new in zip(states, new_states, strict=True):
                    state[active] = new[active]
        return tokens

    def text(self, ids: list[int]) -> str:
        """The text of label ids, as the tokenizer decodes them."""
        return self._detokenizer.text(ids)


class _Identity(torch.nn.Module):
    def forward(self, features: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return features


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(_existing(path)), options, ["CPUExecutionProvider"])


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: write it with todm_sb.export.onnx.export_onnx")
    return path
