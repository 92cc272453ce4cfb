"""Folders of ONNX models, as sherpa-onnx and other recognisers take them."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import onnx
from sentencepiece import SentencePieceProcessor
from speechbrain.processing.features import InputNormalization

from todm_sb.dataio.detokenizer import tokens_of
from todm_sb.export.onnx_features import FEATURES, features_model
from todm_sb.export.onnx_networks import (
    encoder_model,
    joiner_model,
    predictor_model,
    streaming_encoder_model,
)
from todm_sb.export.quantize import write_quantized
from todm_sb.nnet.encoders import onnx_form
from todm_sb.nnet.predictor import StatelessPredictor
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.probes import PRECISIONS
from todm_sb.utils.ownership import new_export

# sherpa-onnx's name for offline transducers whose encoder takes features and lengths.
MODEL_TYPE = "zipformer2"
MODELS = ("encoder.onnx", "decoder.onnx", "joiner.onnx")
STREAMING_ENCODER, TOKENS = "streaming_encoder.onnx", "tokens.txt"
REQUIREMENTS = "requirements.txt"
FILES = (*MODELS, STREAMING_ENCODER, FEATURES, TOKENS, REQUIREMENTS)

# Of the device, besides todm_sb without its own: what OnnxASR imports.
REQUIRED = """\
# On the device: pip install --no-deps /path/to/todm_sb && pip install -r requirements.txt
numpy>=1.26
onnxruntime>=1.20
soundfile>=0.12
soxr>=0.5
"""


def export_onnx(
    folder: str | Path,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int = 5,
    longest_seconds: float | None = None,
    card: str | None = None,
    in_8_bits: bool = False,
) -> list[str]:
    """Writes ``features.onnx``, ``encoder.onnx``, ``decoder.onnx`` (the predictor), ``joiner.onnx``
    and ``tokens.txt``; of a causal or dual-mode network with global normalisation, whose
    subsampling leaves no frame out, also ``streaming_encoder.onnx``; and the ``requirements.txt``
    of a device that runs them with :class:`todm_sb.inference.onnx.OnnxASR`.

    The encoders take raw features: their normalisation is part of the graph. What each model takes
    and gives is told in :mod:`todm_sb.export.onnx_networks`.

    Args:
        folder: made if need be; an earlier export there is replaced.
        model: the network, as :func:`todm_sb.supernet.extract_subnet` gives it.
        normalize: of the features; by global statistics or by each utterance's own.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        max_symbols: labels a frame at most.
        longest_seconds: the longest utterance that was trained on, if it is known.
        card: text of the model card, if there is to be one.
        in_8_bits: write the models as :func:`todm_sb.export.quantize.write_quantized` makes them.

    Returns:
        Why sherpa-onnx would transcribe otherwise than :class:`todm_sb.inference.SubnetASR`, or
        not at all; nothing when it will give the same text.

    Raises:
        ConfigError: if the features are normalised in another way, the encoder is of a kind that
            has no ONNX form, a piece of the tokenizer cannot be put in ``tokens.txt``, or the
            folder holds what no export wrote (see
            :func:`todm_sb.utils.ownership.new_export`).
    """
    form = "onnx-int8" if in_8_bits else "onnx"
    with new_export(folder, form, FILES, card) as new, tempfile.TemporaryDirectory() as temporary:
        exact = Path(temporary) if in_8_bits else new
        obstacles = write_models(
            exact, model, normalize, tokenizer_path, fbank, max_symbols, longest_seconds
        )
        if in_8_bits:
            write_quantized(exact, new)
    return obstacles


def write_both(folder: Path, *parts: Any, **named_parts: Any) -> tuple[Path, Path]:
    """Writes a network into the folders ``float32`` and ``int8`` of a folder, as part of an export,
    for who transcribes whole recordings: without a streaming encoder.

    Args:
        folder: made if need be.
        *parts, **named_parts: of :func:`write_models`.

    Returns:
        Both folders.
    """
    exact, small = (folder / precision for precision in PRECISIONS)
    exact.mkdir(parents=True)
    small.mkdir()
    write_models(exact, *parts, **named_parts, streaming=False)
    write_quantized(exact, small)
    return exact, small


def write_models(
    folder: Path,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int,
    longest_seconds: float | None = None,
    *,
    streaming: bool = True,
) -> list[str]:
    """As :func:`export_onnx`, into a folder that is there and empty, as part of an export; without
    ``streaming`` no streaming encoder."""
    subsampling = onnx_form(model.encoder).subsampling
    tokens = tokens_of(SentencePieceProcessor(model_file=str(tokenizer_path)))
    metadata = {
        "model_type": MODEL_TYPE,
        "version": "1",
        "model_author": "todm_sb",
        "subsampling_factor": str(math.prod(subsampling.time_strides)),
        "look_ahead": str(subsampling.look_ahead),
        "max_symbols": str(max_symbols),
        "fbank": json.dumps(fbank),
    }
    if longest_seconds is not None:
        metadata["longest_seconds"] = str(longest_seconds)
    models = {
        FEATURES: features_model(fbank),
        "encoder.onnx": encoder_model(model, normalize, metadata),
        "decoder.onnx": predictor_model(model),
        "joiner.onnx": joiner_model(model),
    }
    can_stream = normalize.norm_type == "global" and subsampling.has_chunks
    if streaming and True in model.encoder.modes and can_stream:
        models[STREAMING_ENCODER] = streaming_encoder_model(
            model.causal_form(), normalize, metadata
        )
    for name, proto in models.items():
        onnx.save(proto, folder / name)
    (folder / TOKENS).write_text(tokens, encoding="utf-8", newline="\n")
    (folder / REQUIREMENTS).write_text(REQUIRED, encoding="utf-8", newline="\n")
    obstacles = obstacles_to_sherpa(model, fbank, max_symbols)
    if any(line.count(" ") > 1 for line in tokens.split("\n")):
        obstacles.append("no piece of the tokenizer may hold a space")
    return obstacles


def obstacles_to_sherpa(model: Transducer, fbank: dict[str, Any], max_symbols: int) -> list[str]:
    """Why sherpa-onnx cannot transcribe as :class:`todm_sb.inference.SubnetASR` does."""
    obstacles = []
    if not isinstance(model.predictor, StatelessPredictor):
        obstacles.append("predictor: kind must be stateless")
    if fbank.get("fbank_kind") != "kaldi" or fbank.get("snip_edges"):
        obstacles.append("features must be those of fbank_kind: kaldi without snip_edges")
    if (fbank["win_length"], fbank["hop_length"]) != (25, 10):
        obstacles.append("windows must be of 25 ms each 10 ms")
    if max_symbols != 1:
        obstacles.append("max_symbols must be 1")
    return obstacles
