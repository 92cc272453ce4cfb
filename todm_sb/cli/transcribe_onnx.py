"""``todm-sb transcribe --model ONNXFOLDER``: the same on onnxruntime, for devices.

todm-sb transcribe speech.flac more.wav --model exported/onnx
todm-sb transcribe *.wav --model exported/onnx-int8 --threads 2 --json > texts.jsonl

Nothing here imports PyTorch or SpeechBrain; what it needs is in the folder's requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from todm_sb.cli.main import FAILED, OK
from todm_sb.dataio.text import printable
from todm_sb.inference.onnx import OnnxASR, is_onnx_folder
from todm_sb.utils.arguments import at_least
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.hub import model_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``transcribe`` that a folder of ONNX models has."""
    parser.add_argument(
        "audio", nargs="+", type=os.path.expanduser, help="files that libsndfile reads"
    )
    parser.add_argument(
        "--model", required=True, help="folder of ONNX models, or org/model[@revision] of the Hub"
    )
    parser.add_argument("--threads", type=at_least(1), default=1, help="default: 1")
    parser.add_argument("--json", action="store_true", help="print an object a line")


def run(arguments: argparse.Namespace) -> int:
    """Prints the text of each file.

    Returns:
        The exit code: 1 if a file could not be transcribed.

    Raises:
        ConfigError: if the model cannot be loaded.
    """
    folder = model_folder(arguments.model)
    if not is_onnx_folder(folder):
        raise ConfigError(
            f"{arguments.model} holds no encoder.onnx, and other networks than those of todm-sb "
            "export --format onnx need PyTorch: pip install todm_sb"
        )
    asr = OnnxASR(folder, arguments.threads)
    results = [_show(_read(asr, audio), arguments.json) for audio in arguments.audio]
    return FAILED if any("error" in result for result in results) else OK


def _read(asr: OnnxASR, audio: str) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        samples = asr.load_audio(audio)
    except DataError as error:
        return {"audio": audio, "error": str(error)}
    (text,), _ = asr.transcribe_batch(samples[None], [1.0])
    return {
        "audio": audio,
        "seconds": round(len(samples) / asr.sample_rate, 3),
        "time": round(time.perf_counter() - start, 3),
        "text": text,
    }


def _show(result: dict[str, Any], as_json: bool) -> dict[str, Any]:
    if as_json:
        print(printable(json.dumps(result, ensure_ascii=False), "\\u{:04x}"), flush=True)
    elif "error" in result:
        print(f"error: {printable(result['error'])}", file=sys.stderr)
    else:
        print(f"{printable(result['audio'])}\t{printable(result['text'])}", flush=True)
    return result
