"""A recogniser on onnxruntime and numpy alone, for devices: neither PyTorch nor SpeechBrain."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from todm_sb.dataio.detokenizer import Detokenizer
from todm_sb.inference.audio_file import check_batch, open_audio, read_audio
from todm_sb.inference.recogniser import transcribe_waves
from todm_sb.inference.results import Alternative
from todm_sb.inference.words import Labels, words_of_labels
from todm_sb.nnet.hop import hop_of
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import ONNX_FILES, model_folder

# What each model takes and gives, by name; a stateless decoder has no states.
MODELS = {
    "features": ["samples -> x x_lens"],
    "encoder": ["x x_lens -> encoder_out encoder_out_lens"],
    "decoder": ["y -> decoder_out", "y h c -> decoder_out next_h next_c"],
    "joiner": ["encoder_out decoder_out -> logit"],
}
TOKENS = "tokens.txt"
BLANK = 0
# The quantiser of onnxruntime, as its files say; see :mod:`todm_sb.export.quantize`.
QUANTISER = "onnx.quantize"


class OnnxASR:
    """Transcribes speech with a folder that :func:`todm_sb.export.onnx.export_onnx` wrote.

    Example:
        >>> OnnxASR("exported/onnx").transcribe_file("speech.flac")  # doctest: +SKIP
        'TURN ON THE KITCHEN LIGHT'

    Args:
        folder: of the models, or a repository of the Hub (see
            :func:`todm_sb.utils.hub.model_folder`), which needs the package huggingface_hub.
        n_threads: of onnxruntime.
        savedir: where to keep what the Hub has, in place of its cache.
        revision: of the repository: branch, tag or commit.
        token: of the Hub; the one that is stored when None.

    Raises:
        ConfigError: if a model or ``tokens.txt`` is missing, damaged or of another export, or the
            repository cannot be fetched.
    """

    def __init__(
        self,
        folder: str | Path,
        n_threads: int = 1,
        savedir: str | Path | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
    ) -> None:
        folder = model_folder(folder, ONNX_FILES, savedir=savedir, revision=revision, token=token)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        self.features, self.encoder, self.decoder, self.joiner = (
            _session(folder, name, options) for name in MODELS
        )
        self._check_widths(folder)
        # Products in 8 bits have one scale for all that a run is given: whatever else were in a
        # batch would change the numbers of an utterance.
        self._one_by_one = any(
            session.get_modelmeta().producer_name == QUANTISER
            for session in (self.encoder, self.decoder, self.joiner)
        )
        described = _Described.of(folder, self.encoder)
        self.max_symbols, self.sample_rate = described.max_symbols, described.sample_rate
        self.longest_seconds = described.longest_seconds
        self._frame_seconds = described.frame_seconds
        self._n_features = self.encoder.get_inputs()[0].shape[2]
        self._states = [x for x in self.decoder.get_inputs() if x.name != "y"]
        self._context = self.decoder.get_inputs()[0].shape[1]
        self._detokenizer = _detokenizer(folder / TOKENS, self.joiner.get_outputs()[0].shape[1])

    def _check_widths(self, folder: Path) -> None:
        """What one model gives is as wide as what the next one takes."""
        features = [self.features.get_outputs()[0], self.encoder.get_inputs()[0]]
        joint = [self.encoder.get_outputs()[0], self.decoder.get_outputs()[0]]
        for tensors in (features, [*joint, *self.joiner.get_inputs()]):
            if len({x.shape[-1] for x in tensors}) > 1:
                raise _of_another_writer(folder)

    def transcribe_file(self, path: str | Path) -> str:
        """Transcribes a file; if it is longer than the utterances of training, in parts.

        Raises:
            DataError: see :meth:`load_audio`.
        """
        (found,) = transcribe_waves(self, [self.load_audio(path)])
        return found.text

    def load_audio(self, path: str | Path) -> np.ndarray:
        """Loads a file as one channel at the network's sampling rate: (samples,), float32.

        Args:
            path: of a file, or a pipe such as ``/dev/stdin``; any format that libsndfile reads.

        Raises:
            DataError: if it is missing, is no audio, holds no sample or one that is not finite,
                or has a sampling rate that cannot be converted.
        """
        samples, rate = read_audio(open_audio(path), self.sample_rate, path)
        return samples if rate == self.sample_rate else _resampled(samples, rate, self.sample_rate)

    def transcribe_batch(self, wavs: Any, wav_lens: Any) -> tuple[list[str], list[list[int]]]:
        """As :meth:`todm_sb.inference.SubnetASR.transcribe_batch`, of arrays or tensors.

        Raises:
            DataError: if shapes, samples or lengths make no sense.
        """
        wavs, wav_lens = np.asarray(wavs), np.asarray(wav_lens)
        check_batch(wavs, wav_lens)
        if not len(wavs):
            return [], []
        tokens = [found.ids for found in self.search(*self.encode(wavs, wav_lens))]
        return [self.text(ids) for ids in tokens], tokens

    def encode(self, wavs: Any, wav_lens: Any) -> tuple[np.ndarray, np.ndarray]:
        """(batch, samples) and fractions -> (batch, T, d_joint) and integer lengths."""
        wavs = np.asarray(wavs, np.float32)
        n_samples = np.rint(np.asarray(wav_lens, np.float64) * wavs.shape[1]).astype(int)
        return self._encode([wav[:n] for wav, n in zip(wavs, n_samples, strict=True)])

    def _encode(self, waves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(samples,) each -> (batch, T, d_joint) and integer lengths."""
        if self._one_by_one and len(waves) > 1:
            return _together([self._encode([wave]) for wave in waves])
        each = [self._extract(wave) for wave in waves]
        lengths = np.array([len(x) for x in each], np.int64)
        # A frame that is nobody's where there is none at all: the graph needs one.
        features = np.zeros((len(each), max(1, *lengths), self._n_features), np.float32)
        for row, x in zip(features, each, strict=True):
            row[: len(x)] = x
        return self.encoder.run(None, {"x": features, "x_lens": lengths})

    def search(self, encoded: np.ndarray, n_frames: np.ndarray) -> list[Labels]:
        """Greedy search, frame by frame."""
        if self._one_by_one and len(encoded) > 1:
            each = zip(encoded, n_frames, strict=True)
            return [x for row, n in each for x in self.search(row[None, :n], np.array([n]))]
        batch = len(encoded)
        found = [Labels([], [], []) for _ in range(batch)]
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
                active = active & (label != BLANK)
                if not active.any():
                    break
                for row in np.flatnonzero(active):
                    found[row].add(int(label[row]), t, _log_prob(logits[row], label[row]))
                    labels[row] = [*labels[row, 1:], label[row]]
                    for feed, state in zip(feeds.values(), states, strict=True):
                        feed[row] = state[row]
                new_output, *new_states = self.decoder.run(None, {"y": labels, **feeds})
                output[active] = new_output[active]
                for state, new in zip(states, new_states, strict=True):
                    state[active] = new[active]
        return found

    def text(self, ids: list[int]) -> str:
        """The text of label ids, as the tokenizer decodes them."""
        return self._detokenizer.text(ids)

    def load(self, path: str) -> np.ndarray:
        """See :class:`todm_sb.inference.recogniser.Recogniser`."""
        return self.load_audio(path)

    def recognise(self, waves: Sequence[np.ndarray]) -> list[list[Alternative]]:
        """See :class:`todm_sb.inference.recogniser.Recogniser`; one alternative each."""
        if not waves:
            return []
        return [
            [self._alternative(labels, len(wave) / self.sample_rate)]
            for labels, wave in zip(self.search(*self._encode(waves)), waves, strict=True)
        ]

    def _alternative(self, labels: Labels, seconds: float) -> Alternative:
        words = words_of_labels(labels, self._detokenizer, self._frame_seconds, seconds)
        return Alternative(self.text(labels.ids), tuple(words), sum(labels.log_probs))

    def _extract(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) -> (frames, features), raw: the encoder's graph normalises."""
        if not len(samples):
            return np.zeros((0, self._n_features), np.float32)
        features, lengths = self.features.run(None, {"samples": samples[None]})
        return features[0, : lengths[0]]


def _together(each: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Batches of one as one batch, padded with zeros."""
    encoded, n_frames = zip(*each, strict=True)
    longest = max(x.shape[1] for x in encoded)
    padded = [np.pad(x, ((0, 0), (0, longest - x.shape[1]), (0, 0))) for x in encoded]
    return np.concatenate(padded), np.concatenate(n_frames)


def _resampled(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    try:
        import soxr
    except ModuleNotFoundError:
        raise ConfigError(
            f"audio of {rate} Hz for a network of {target} Hz: pip install soxr"
        ) from None
    return soxr.resample(samples, rate, target)


def _log_prob(logits: np.ndarray, label: int) -> float:
    """Of a label among all, in float64."""
    logits = logits.astype(np.float64)
    largest = logits.max()
    return float(logits[label] - largest - np.log(np.exp(logits - largest).sum()))


class _Described(NamedTuple):
    """What an encoder says of the network.

    Args:
        max_symbols: labels a frame at most.
        sample_rate: in Hz.
        frame_seconds: from one encoder frame to the next.
        longest_seconds: the longest utterance of training; None if it is not known.
    """

    max_symbols: int
    sample_rate: int
    frame_seconds: float
    longest_seconds: float | None

    @classmethod
    def of(cls, folder: Path, encoder: onnxruntime.InferenceSession) -> _Described:
        """From the metadata of its file.

        Raises:
            ConfigError: if it has none, or a number makes no sense.
        """
        try:
            metadata = encoder.get_modelmeta().custom_metadata_map
            fbank = json.loads(metadata["fbank"])
            rate, max_symbols = int(fbank["sample_rate"]), int(metadata["max_symbols"])
            factor, hop = int(metadata["subsampling_factor"]), hop_of(fbank)
            longest = metadata.get("longest_seconds")
            seconds = None if longest is None else float(longest)
            if min(rate, max_symbols, factor, hop) < 1:
                raise ValueError
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError
            return cls(max_symbols, rate, factor * hop / rate, seconds)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            raise _of_another_writer(folder) from None


def _session(
    folder: Path, name: str, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    path = _existing(folder / f"{name}.onnx")
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each cause
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is no ONNX model, or a damaged one: {reason}") from None
    sides = session.get_inputs(), session.get_outputs()
    if " -> ".join(" ".join(x.name for x in side) for side in sides) not in MODELS[name]:
        raise _of_another_writer(path)
    return session


def _of_another_writer(path: Path) -> ConfigError:
    return ConfigError(f"{path} was not written by todm-sb export --format onnx")


def _detokenizer(path: Path, n_labels: int) -> Detokenizer:
    data = _existing(path).read_bytes()
    try:
        found = Detokenizer.of_tokens(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is damaged: it is not UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
    if len(found.pieces) != n_labels:
        raise ConfigError(
            f"{path} has {len(found.pieces)} pieces, but joiner.onnx {n_labels} labels: it is "
            "damaged, or of another export"
        )
    return found


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: todm-sb export --format onnx writes it")
    return path
