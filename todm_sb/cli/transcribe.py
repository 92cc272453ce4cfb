"""``todm-sb transcribe``: transcribes audio with an exported network.

todm-sb transcribe speech.flac recordings/ --model exported/all --max-params 5M
todm-sb transcribe lecture.mp3 --model exported/all --format srt --output subtitles/
ffmpeg -i talk.m4a -f wav - | todm-sb transcribe - --model exported/all --format json

Text is a line a file: path, tab, text. As JSON each file is an object with ``audio``, ``seconds``
(of audio), ``time`` (seconds that it took), ``text`` and ``words``, or ``audio`` and ``error``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from todm_sb.cli.recogniser import add_search_arguments, decoding_of, load
from todm_sb.cli.transcripts import (
    Result,
    add_audio_arguments,
    add_output_arguments,
    results_of,
    show,
    sources_of_arguments,
)
from todm_sb.dataio.librispeech import reference_of
from todm_sb.dataio.text import words_of_text
from todm_sb.inference.recogniser import Transcribed
from todm_sb.utils.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``transcribe``."""
    add_audio_arguments(parser)
    parser.add_argument(
        "--model", required=True, help="folder of a bundle, or org/model[@revision] of the Hub"
    )
    parser.add_argument("--subnet", help="name in the bundle, max, min, or JSON of a config (max)")
    parser.add_argument("--max-params", help="the best subnet of at most so many, e.g. 5M")
    parser.add_argument("--max-latency", help="and of at most this recorded latency, e.g. 80ms")
    add_output_arguments(parser)
    parser.add_argument(
        "--reference",
        action="store_true",
        help="show the reference too, where a file lies in LibriSpeech's layout",
    )
    add_search_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints, or writes, the transcript of each file.

    Returns:
        The exit code: 1 if a file could not be transcribed.

    Raises:
        ConfigError: if the model cannot be loaded, or options do not fit together.
    """
    sources = sources_of_arguments(arguments)
    decoding = decoding_of(arguments, arguments.nbest)
    asr = load(
        arguments.model,
        arguments.subnet,
        arguments.max_params,
        arguments.max_latency,
        arguments.device,
        arguments.trusted,
    )
    results = results_of(arguments, asr.recogniser(decoding), sources)
    if arguments.reference:
        results = (_with_reference(asr.tokenizer, result) for result in results)
    return show(arguments, results)


def _with_reference(tokenizer: Any, result: Result) -> Result:
    try:
        reference = reference_of(Path(result.audio))
    except DataError as error:
        return Result(Transcribed(result.done.source, error=str(error)))
    if reference is not None and result.done.transcript is not None:
        result.fields["reference"] = " ".join(words_of_text(tokenizer, reference))
    return result
