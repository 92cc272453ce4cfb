"""ONNX models for the page of ``todm-sb serve``, or any engine without features of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import onnx
from speechbrain.processing.features import InputNormalization

from todm_sb.export.manifest import BundledSubnet
from todm_sb.export.onnx import export_onnx
from todm_sb.export.onnx_features import features_model
from todm_sb.export.quantize import quantize_folder
from todm_sb.nnet.transducer import Transducer
from todm_sb.web.models import CARD


def export_web(
    folder: str | Path,
    subnet: BundledSubnet,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int = 5,
) -> None:
    """Writes a subnet in two precisions, into ``<folder>/float32`` and ``<folder>/int8``.

    Each holds the models of :func:`todm_sb.export.onnx.export_onnx`, ``features.onnx`` from
    samples to what the encoder takes, ``tokens.txt``, and ``model.json``: the subnet and what is
    known of it, its precision, the sampling rate, and how many labels a frame may have.

    Args:
        folder: made if need be; files of an earlier export there are replaced.
        subnet: what is known of it.
        model: the network of it, as :func:`todm_sb.supernet.extract_subnet` gives it.
        normalize: of the features; by global statistics or by each utterance's own.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        max_symbols: labels a frame at most.

    Raises:
        ConfigError: if the features are normalised in another way.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as temporary:
        export_onnx(temporary, model, normalize, tokenizer_path, fbank, max_symbols)
        # Other engines stream; the page reads whole recordings.
        (Path(temporary) / "streaming_encoder.onnx").unlink(missing_ok=True)
        shutil.copytree(temporary, folder / "float32", dirs_exist_ok=True)
        quantize_folder(temporary, folder / "int8")
    features = features_model(fbank)
    for precision in ("float32", "int8"):
        onnx.save(features, folder / precision / "features.onnx")
        card = {
            **subnet.to_dict(),
            "description": ", ".join(f"{k} {v}" for k, v in subnet.config.describe().items()),
            "precision": precision,
            "sample_rate": fbank["sample_rate"],
            "max_symbols": max_symbols,
        }
        (folder / precision / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
