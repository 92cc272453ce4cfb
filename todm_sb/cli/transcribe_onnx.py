"""``todm-sb transcribe --model ONNXFOLDER``: the same on onnxruntime, for devices.

todm-sb transcribe speech.flac recordings/ --model exported/onnx
todm-sb transcribe lecture.mp3 --model exported/onnx-int8 --threads 2 --format srt

Nothing here imports PyTorch or SpeechBrain; what it needs is in the folder's requirements.txt. The
search is greedy.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from todm_sb.cli.cutting import add_cutting_arguments
from todm_sb.cli.transcripts import (
    add_audio_arguments,
    add_output_arguments,
    results_of,
    show,
    sources_of_arguments,
)
from todm_sb.inference.onnx import OnnxASR
from todm_sb.utils.arguments import at_least
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.extras import installing
from todm_sb.utils.hub import is_onnx_folder, model_folder

# Options of the same command that need PyTorch, or several subnets.
ELSEWHERE = (
    *("--subnet", "--max-params", "--max-latency", "--beam-size", "--hotwords", "--lm"),
    *("--hotwords-boost", "--lm-weight", "--device", "--trusted", "--reference"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``transcribe`` that a folder of ONNX models has."""
    add_audio_arguments(parser)
    parser.add_argument(
        "--model", required=True, help="folder of ONNX models, or org/model[@revision] of the Hub"
    )
    parser.add_argument("--threads", type=at_least(1), default=1, help="of onnxruntime (1)")
    add_output_arguments(parser)
    add_cutting_arguments(parser)
    for option in ELSEWHERE:
        parser.add_argument(option, nargs="?", action=_Elsewhere, help=argparse.SUPPRESS)


class _Elsewhere(argparse.Action):
    """Refuses an option, and says where it is known."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> NoReturn:
        parser.error(
            f"{option} is of bundles, with PyTorch: a folder of ONNX models holds one network, "
            "which searches greedily, on the CPU"
        )


def run(arguments: argparse.Namespace) -> int:
    """Prints, or writes, the transcript of each file.

    Returns:
        The exit code: 1 if a file could not be transcribed.

    Raises:
        ConfigError: if the model cannot be loaded, or options do not fit together.
    """
    sources = sources_of_arguments(arguments)
    if arguments.nbest > 1:
        raise ConfigError("--nbest needs a beam, which folders of ONNX models do not have")
    folder = model_folder(arguments.model)
    if not is_onnx_folder(folder):
        raise ConfigError(
            f"{arguments.model} holds no encoder.onnx, and other networks than those of todm-sb "
            f"export --format onnx need PyTorch: {installing()}"
        )
    asr = OnnxASR(folder, arguments.threads)
    return show(arguments, results_of(arguments, asr, sources))
