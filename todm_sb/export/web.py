"""ONNX models for the page of ``todm-sb serve``, or any engine without features of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechbrain.processing.features import InputNormalization

from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.export.card import CARD
from todm_sb.export.card import FILES as SERVED
from todm_sb.export.onnx import REQUIREMENTS, STREAMING_ENCODER, write_models
from todm_sb.export.quantize import write_quantized
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.probes import PRECISIONS
from todm_sb.utils.ownership import new_export

# Of a subnet in its folder.
FILES = tuple(f"{p}/{name}" for p in PRECISIONS for name in (*SERVED, CARD))


def export_web(
    folder: str | Path,
    subnet: BundledSubnet,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int = 5,
    longest_seconds: float | None = None,
) -> None:
    """Writes a subnet in two precisions, into ``<folder>/float32`` and ``<folder>/int8``.

    Each holds the models of :func:`todm_sb.export.onnx.export_onnx`, ``tokens.txt``, and
    ``model.json``: the subnet and what is known of it, its precision, the sampling rate, how many
    labels a frame may have, and the longest utterance of training.

    Args:
        folder: made if need be; an earlier export there is replaced.
        subnet: what is known of it.
        model: the network of it, as :func:`todm_sb.supernet.extract_subnet` gives it.
        normalize: of the features; by global statistics or by each utterance's own.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        max_symbols: labels a frame at most.
        longest_seconds: the longest utterance that was trained on, if it is known.

    Raises:
        ConfigError: if the features are normalised in another way, or the folder holds what no
            export wrote (see :func:`todm_sb.utils.ownership.new_export`).
    """
    with new_export(folder, "web", FILES) as new:
        write_subnet(
            new, subnet, model, normalize, tokenizer_path, fbank, max_symbols, longest_seconds
        )


def write_subnet(
    folder: Path,
    subnet: BundledSubnet,
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int = 5,
    longest_seconds: float | None = None,
) -> None:
    """As :func:`export_web`, into an empty folder, as part of an export."""
    exact, small = (folder / precision for precision in PRECISIONS)
    exact.mkdir(parents=True)
    small.mkdir()
    write_models(exact, model, normalize, tokenizer_path, fbank, max_symbols, longest_seconds)
    # Other engines stream; the page transcribes whole recordings, and no Python.
    for name in (STREAMING_ENCODER, REQUIREMENTS):
        (exact / name).unlink(missing_ok=True)
    write_quantized(exact, small)
    for precision in PRECISIONS:
        card = {
            **subnet.to_dict(),
            "description": ", ".join(f"{k} {v}" for k, v in subnet.config.describe().items()),
            "precision": precision,
            "sample_rate": fbank["sample_rate"],
            "max_symbols": max_symbols,
            "longest_seconds": longest_seconds,
        }
        (folder / precision / CARD).write_text(json.dumps(card, indent=1), encoding="utf-8")
