"""Subnets of a run as devices run them in 8 bits, to be measured before one is chosen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from todm_sb.export.onnx import write_both
from todm_sb.export.run import common_parts
from todm_sb.inference.onnx import OnnxASR
from todm_sb.supernet import SubnetConfig, extract_subnet
from todm_sb.training.runs import trained_durations
from todm_sb.training.searcher import searcher_of


def in_8_bits(run: Path, hparams: dict[str, Any]) -> Callable[[SubnetConfig], OnnxASR]:
    """What makes recognisers of subnets, each of the very files that
    ``todm-sb export --format onnx-int8`` writes.

    Args:
        run: ``output_folder`` of train.py.
        hparams: of it, as :func:`todm_sb.training.runs.load_run` gives them.

    Raises:
        ConfigError: if its tokenizer is missing, or it decodes with what no exported network has;
            when called, if the network has no ONNX form.
    """
    model = hparams["model"]
    searcher_of(hparams, model.deployed())
    parts = common_parts(run, hparams)
    longest = max(trained_durations(hparams), default=None)

    def recogniser(config: SubnetConfig) -> OnnxASR:
        with tempfile.TemporaryDirectory() as temporary:
            subnet = extract_subnet(model, config)
            _, small = write_both(Path(temporary), subnet, **parts, longest_seconds=longest)
            return OnnxASR(small)

    return recogniser
