"""ONNX models for the page of ``todm-sb serve``, or any engine without features of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechbrain.processing.features import InputNormalization

from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.export.card import CARD
from todm_sb.export.onnx import REQUIREMENTS, write_both
from todm_sb.nnet.transducer import Transducer
from todm_sb.search.probes import PRECISIONS
from todm_sb.supernet import extract_subnet
from todm_sb.utils.hub import ONNX_FILES
from todm_sb.utils.ownership import new_export


def export_web(
    folder: str | Path,
    subnets: Sequence[BundledSubnet],
    model: Transducer,
    normalize: InputNormalization,
    tokenizer_path: str | Path,
    fbank: dict[str, Any],
    max_symbols: int = 5,
    longest_seconds: float | None = None,
    card: str | None = None,
) -> None:
    """Writes subnets in two precisions each, into ``<folder>/<name>/float32`` and
    ``<folder>/<name>/int8``.

    Each holds the models of :func:`todm_sb.export.onnx.write_both`, ``tokens.txt``, and
    ``model.json``: the subnet and what is known of it, its precision, the sampling rate, how many
    labels a frame may have, and the longest utterance of training.

    Args:
        folder: made if need be; an earlier export there is replaced.
        subnets: what is known of them.
        model: the network that they are cut out of.
        normalize: of the features; by global statistics or by each utterance's own.
        tokenizer_path: SentencePiece model.
        fbank: arguments of :func:`todm_sb.nnet.features.make_fbank`.
        max_symbols: labels a frame at most.
        longest_seconds: the longest utterance that was trained on, if it is known.
        card: text of the model card, if there is to be one.

    Raises:
        ConfigError: if the features are normalised in another way, or the folder holds what no
            export wrote (see :func:`todm_sb.utils.ownership.new_export`).
    """
    folders = [f"{subnet.name}/{precision}" for subnet in subnets for precision in PRECISIONS]
    names = [f"{of}/{name}" for of in folders for name in (*ONNX_FILES, CARD)]
    parts = normalize, tokenizer_path, fbank, max_symbols, longest_seconds
    with new_export(folder, "web", names, card) as new:
        for subnet in subnets:
            network = extract_subnet(model, subnet.config)
            description = ", ".join(f"{k} {v}" for k, v in subnet.config.describe().items())
            for written in write_both(new / subnet.name, network, *parts):
                (written / REQUIREMENTS).unlink()  # for Python
                told = {
                    **subnet.to_dict(),
                    "description": description,
                    "precision": written.name,
                    "sample_rate": fbank["sample_rate"],
                    "max_symbols": max_symbols,
                    "longest_seconds": longest_seconds,
                }
                (written / CARD).write_text(json.dumps(told, indent=1), encoding="utf-8")
