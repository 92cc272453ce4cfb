"""``todm-sb check-data``: what is wrong with a manifest, before training or evaluation.

todm-sb check-data train.csv --tokenizer 1024_unigram.model
todm-sb check-data train.csv --strict --report faults.csv
todm-sb check-data test-clean.csv --purpose evaluate
todm-sb check-data own.json --resample --mixdown --data-root recordings --text-column words
"""

from __future__ import annotations

import argparse
from pathlib import Path

from todm_sb.cli.main import FAILED, OK
from todm_sb.cli.reading import add_reading_arguments, reading_of
from todm_sb.dataio.audio import Conversion
from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.faults import PURPOSES, TRAIN, holds_faults, write_faults
from todm_sb.dataio.tokenizer import load_tokenizer
from todm_sb.utils.arguments import (
    at_least,
    check_file_place,
    check_given_with,
    given,
    path,
    positive,
)
from todm_sb.utils.errors import ConfigError

# Faults printed; --report has them all.
SHOWN = 20
MAX_DURATION, FRAME_SHIFT = 60.0, 0.04


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``check-data``."""
    parser.add_argument(
        "manifest", type=path, help="CSV or JSON with ID, duration, wav, and wrds or wrd"
    )
    parser.add_argument(
        "--purpose",
        choices=PURPOSES,
        default=TRAIN,
        help="train, or evaluate: what validation and test count, however long (train)",
    )
    parser.add_argument("--sample-rate", type=at_least(1), default=16000, help="in Hz (16000)")
    parser.add_argument(
        "--resample", action="store_true", help="audio of another rate is resampled: no fault"
    )
    parser.add_argument(
        "--mixdown", action="store_true", help="several channels are mixed down: no fault"
    )
    add_reading_arguments(parser)
    parser.add_argument("--max-duration", type=positive, help="to train on, seconds (60)")
    parser.add_argument(
        "--tokenizer",
        type=path,
        help="SentencePiece model, which must know all characters of what is trained on",
    )
    parser.add_argument(
        "--frame-shift",
        type=positive,
        help="with --tokenizer, seconds between encoder frames, which limit the labels (0.04)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="read only headers and ends of the audio files"
    )
    parser.add_argument("--threads", type=at_least(1), default=8, help="files opened at a time (8)")
    parser.add_argument(
        "--report", type=path, help="CSV to write all faults to, over an earlier one"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 on any fault")


def run(arguments: argparse.Namespace) -> int:
    """Prints the faults and a summary.

    Returns:
        The exit code: with ``--strict``, 1 if there is a fault.

    Raises:
        DataError: if the manifest cannot be read, or no utterance of it can be used.
        ConfigError: if the tokenizer cannot be read, the report has no place or would replace
            somebody's file, or options do not fit together.
    """
    check_given_with(arguments, "--tokenizer FILE", "--frame-shift")
    for option in ("--max-duration", "--frame-shift"):
        if arguments.purpose != TRAIN and given(arguments, option):
            raise ConfigError(f"{option} is no limit of what is evaluated: leave it out")
    if arguments.report:
        _check_place(arguments.report, arguments.manifest)
    frame_shift = arguments.frame_shift or FRAME_SHIFT
    limits = Limits(
        arguments.sample_rate,
        arguments.max_duration or MAX_DURATION,
        arguments.tokenizer and load_tokenizer(arguments.tokenizer),
        lambda seconds: int(seconds / frame_shift),
        Conversion(arguments.resample, arguments.mixdown),
    )
    audio = "ends" if arguments.quick else "whole"
    report = check_manifest(
        arguments.manifest,
        limits,
        audio,
        arguments.threads,
        purpose=arguments.purpose,
        reading=reading_of(arguments),
    )
    faults = report.all_faults
    if arguments.report:
        write_faults(arguments.report, faults)
    for fault in faults[:SHOWN]:
        print(fault)
    if len(faults) > SHOWN:
        print(f"... and {len(faults) - SHOWN} more: --report FILE has them all")
    print(report.summary())
    report.require()
    return FAILED if arguments.strict and faults else OK


def _check_place(report: Path, manifest: Path) -> None:
    """Before any audio is read."""
    if report.resolve() == manifest.resolve():
        raise ConfigError(f"--report {report} is the manifest itself: name another file")
    check_file_place(report, "--report ", holds_faults)
