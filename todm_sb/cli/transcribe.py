"""``todm-sb transcribe``: reads audio files with an exported network.

todm-sb transcribe speech.flac more.wav --model exported/all --max-params 5M
todm-sb transcribe *.wav --model exported/all --subnet min --json > read.jsonl

A line a file, as soon as it is read: path, tab, text; with ``--json`` an object with ``audio``,
``seconds`` (of audio), ``time`` (seconds that reading took) and ``text``, or ``audio`` and
``error``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from todm_sb.bundle.bundle import MANIFEST
from todm_sb.cli.main import FAILED, OK
from todm_sb.dataio.librispeech import reference_of
from todm_sb.dataio.text import printable, words_of_text
from todm_sb.inference import SubnetASR
from todm_sb.search.budget import parse_budget
from todm_sb.utils.arguments import path
from todm_sb.utils.devices import usable_device
from todm_sb.utils.errors import ConfigError, DataError
from todm_sb.utils.progress import bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``transcribe``."""
    parser.add_argument(
        "audio", nargs="+", type=os.path.expanduser, help="files that libsndfile reads"
    )
    parser.add_argument("--model", required=True, type=path, help="folder of a bundle")
    parser.add_argument("--subnet", help="name in the bundle, max, min, or JSON of a config (max)")
    parser.add_argument("--max-params", help="the best subnet of at most so many, e.g. 5M")
    parser.add_argument("--max-latency", help="and of at most this recorded latency, e.g. 80ms")
    parser.add_argument("--device", help="of PyTorch, e.g. cpu (a GPU where there is one)")
    parser.add_argument("--json", action="store_true", help="print an object a line")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="show the reference too, where a file lies in LibriSpeech's layout",
    )
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="load SpeechBrain's hyperparams.yaml, which can run any code, from a folder without "
        f"{MANIFEST}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what is read in each file.

    Returns:
        The exit code: 1 if a file could not be read.

    Raises:
        ConfigError: if the model cannot be loaded.
    """
    asr = load(arguments)
    failed = 0
    for audio in bar(arguments.audio, show=len(arguments.audio) > 1, unit="file"):
        try:
            result = _read(asr, audio)
            if arguments.reference and (reference := reference_of(Path(audio))) is not None:
                result["reference"] = " ".join(words_of_text(asr.tokenizer, reference))
        except DataError as error:
            failed += 1
            result = {"audio": audio, "error": str(error)}
        _show(result, arguments.json)
    return FAILED if failed else OK


def load(arguments: argparse.Namespace) -> SubnetASR:
    """The network that the arguments ask for.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    run_opts = {"device": str(usable_device(arguments.device))} if arguments.device else None
    if (arguments.model / MANIFEST).exists():
        params, latency = arguments.max_params, arguments.max_latency
        return SubnetASR.from_bundle(
            arguments.model,
            arguments.subnet,
            None if params is None else round(parse_budget(params, "params")),
            None if latency is None else 1e3 * parse_budget(latency, "latency"),
            run_opts,
        )
    if not arguments.trusted:
        raise ConfigError(
            f"{arguments.model} holds no {MANIFEST}; if it is a SpeechBrain folder that you "
            "trust, add --trusted"
        )
    if (arguments.max_params, arguments.max_latency) != (None, None):
        raise ConfigError(f"{arguments.model} is no bundle: a limit has nothing to choose from")
    if arguments.subnet:
        return SubnetASR.from_supernet(arguments.model, arguments.subnet, run_opts=run_opts)
    return SubnetASR.from_hparams(arguments.model, run_opts=run_opts)


def _read(asr: SubnetASR, path: str) -> dict[str, Any]:
    start = time.perf_counter()
    samples = asr.load_audio(path)
    (text,), _ = asr.transcribe_batch(samples.unsqueeze(0), torch.ones(1))
    return {
        "audio": path,
        "seconds": round(len(samples) / asr.hparams.sample_rate, 3),
        "time": round(time.perf_counter() - start, 3),
        "text": text,
    }


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        # What JSON does not escape is escaped as it does.
        line = printable(json.dumps(result, ensure_ascii=False), "\\u{:04x}")
        tqdm.write(line, file=sys.stdout)
    elif "error" in result:
        tqdm.write(f"error: {printable(result['error'])}", file=sys.stderr)
    else:
        tqdm.write(f"{printable(result['audio'])}\t{printable(result['text'])}", file=sys.stdout)
        if "reference" in result:
            tqdm.write(f"  reference:\t{printable(result['reference'])}", file=sys.stdout)
    sys.stdout.flush()
