"""``todm-sb latency``: measures on a device what the search for its subnets needs.

todm-sb latency results/mini/1234 --probes probes           # where the run is: networks to time
todm-sb latency probes/*/* --out table.json                 # on the device, with those folders
todm-sb search results/mini/1234 --latency-table table.json

The second runs where todm_sb is installed without PyTorch (the requirements.txt in each folder).
Any other folder of ONNX models can be timed, too; the search takes no account of it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from todm_sb.cli.main import OK
from todm_sb.search.probes import FORMAT, VERSION, is_table, read_card
from todm_sb.utils.arguments import (
    at_least,
    check_file_place,
    check_given_with,
    given,
    path,
    positive,
)
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import write_atomic

SECONDS, REPEATS = 10.0, 5
# Options of timing.
OF_TIMES = ("--seconds", "--audio", "--threads", "--repeats")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``latency``."""
    parser.add_argument(
        "folders", nargs="+", type=path, help="of ONNX models; with --probes, of a run"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--probes", type=path, help="write the networks to time into this folder")
    what.add_argument(
        "--out", type=path, help="write the table for todm-sb search here, over an earlier one"
    )
    parser.add_argument(
        "--causal", action="store_true", help="with --probes, a dual-mode network's causal form"
    )
    parser.add_argument("--seconds", type=positive, help="of audio; default: 10")
    parser.add_argument("--audio", help="speech to transcribe; default: noise")
    parser.add_argument(
        "--threads",
        type=at_least(1),
        action="append",
        help="of onnxruntime; may be given several times; default: 1",
    )
    parser.add_argument("--repeats", type=at_least(1), help="default: 5")


def run(arguments: argparse.Namespace) -> int:
    """Writes the probes, or times them.

    Returns:
        The exit code.

    Raises:
        ConfigError: if a folder is not as it should be, the table has no place or would replace
            somebody's file, or options do not fit together.
    """
    if arguments.probes is not None:
        return _write(arguments)
    check_given_with(arguments, "--probes DIR", "--causal")
    if arguments.out is not None:
        check_file_place(arguments.out, "--out ", is_table)
    from todm_sb.inference.onnx import OnnxASR
    from todm_sb.inference.onnx_latency import device, time_folders

    cards = [read_card(folder) for folder in arguments.folders]
    samples = None
    if arguments.audio:
        samples = OnnxASR(arguments.folders[0]).load_audio(os.path.expanduser(arguments.audio))
    seconds, measured = arguments.seconds or SECONDS, []
    for threads in arguments.threads or [1]:
        options = (seconds, threads, arguments.repeats or REPEATS, samples)
        for folder, card, latency in zip(
            arguments.folders, cards, time_folders(arguments.folders, *options), strict=True
        ):
            print(f"{folder}\t{threads} thread(s)\t{1e3 * latency:.2f} ms", flush=True)
            measured.append(_record(folder, card, threads, latency))
    table = {
        "format": FORMAT,
        "version": VERSION,
        "device": device(),
        "seconds": seconds,
        "measured": measured,
    }
    if arguments.out is not None:
        write_atomic(arguments.out, json.dumps(table, indent=1) + "\n")
        if None in cards:
            print("folders without probe.json are left out by todm-sb search")
    return OK


def _record(folder: Path, card: Any, threads: int, latency: float) -> dict[str, Any]:
    return {"folder": str(folder), "threads": threads, "latency": latency, "probe": card}


def _write(arguments: argparse.Namespace) -> int:
    if len(arguments.folders) > 1:
        raise ConfigError("--probes writes those of one run: name one")
    for option in filter(lambda option: given(arguments, option), OF_TIMES):
        raise ConfigError(f"{option} is of timing, which --probes does not do: leave it out")
    from todm_sb.export.probes import write_probes

    folders = write_probes(arguments.folders[0], arguments.probes, arguments.causal)
    command = f"todm-sb latency {arguments.probes}/*/* --out table.json"
    print(f"{len(folders)} networks; on the device: {command}")
    return OK
