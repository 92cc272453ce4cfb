"""What every ``todm-sb transcribe`` can be told of audio and output, and the output itself; nothing
here needs PyTorch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from todm_sb.cli.cutting import cutting_of
from todm_sb.cli.main import FAILED, OK
from todm_sb.dataio.text import printable
from todm_sb.inference.formats import (
    FORMATS,
    SUFFIXES,
    TOGETHER,
    as_ctm,
    as_json,
    as_srt,
    as_text,
    as_vtt,
    ctm_name,
)
from todm_sb.inference.recogniser import (
    WINDOW_FILES,
    WINDOW_SECONDS,
    Recogniser,
    Transcribed,
    transcribe_sources,
)
from todm_sb.inference.sources import Source, check_names, sources_of
from todm_sb.utils.arguments import at_least, path
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.own_files import check_own, write_own
from todm_sb.utils.progress import bar, say


def add_audio_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what to transcribe."""
    parser.add_argument(
        "audio",
        nargs="*",
        type=os.path.expanduser,
        help="files that libsndfile reads, folders of such, - for standard input",
    )
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        type=os.path.expanduser,
        metavar="FILE",
        help="a file that names one of them a line, relative to itself; - for standard input",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds in which form to tell it, and where."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--format", choices=FORMATS, default="text", help="(text)")
    form.add_argument(
        "--json", action="store_const", const="jsonl", dest="format", help="as --format jsonl"
    )
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="write a file for each, named as the audio is"
    )
    parser.add_argument(
        "--nbest", type=at_least(1), default=1, metavar="N", help="alternatives, as JSON (1)"
    )


def sources_of_arguments(arguments: argparse.Namespace) -> list[Source]:
    """What the arguments want transcribed, once the output has a place, before anything is loaded.

    Raises:
        ConfigError: if the options do not fit together, or have no place.
    """
    sources = sources_of(arguments.audio, arguments.list)
    form = arguments.format
    if arguments.nbest > 1 and form not in ("json", "jsonl"):
        raise ConfigError(f"--nbest {arguments.nbest}: --format json or jsonl has alternatives")
    if getattr(arguments, "reference", False) and form not in ("text", "json", "jsonl"):
        raise ConfigError(f"--format {form} has no place for a --reference")
    if form == "ctm":
        check_names(sources, ctm_name)
    if arguments.output:
        check_names(sources)
        check_own(arguments.output, [source.name + SUFFIXES[form] for source in sources])
        arguments.output.mkdir(parents=True, exist_ok=True)
    elif form not in TOGETHER and len(sources) > 1:
        raise ConfigError(f"--format {form} is of one recording: add --output DIR")
    return sources


class Result:
    """What is told of a file.

    Args:
        done: what became of it.
        nbest: alternatives that are told.
    """

    def __init__(self, done: Transcribed, nbest: int = 1) -> None:
        self.done = done
        self.audio = done.source.path
        self.fields: dict[str, Any] = {"audio": self.audio}
        if done.transcript is None:
            self.fields["error"] = done.error
        else:
            own = done.transcript.to_dict(nbest)
            self.fields |= {"seconds": own.pop("seconds"), "time": round(done.seconds, 3), **own}

    def rendered(self, form: str) -> str:
        """The transcript in a format, for a file or a stream of its own; as text with the
        reference, where there is one."""
        transcript = self.done.transcript
        assert transcript is not None
        if form == "ctm":
            return as_ctm(transcript, self.done.source.name)
        if form in ("json", "jsonl"):
            return as_json(self.fields, indent=1 if form == "json" else None)
        if form == "text":
            return as_text(transcript) + self._reference()
        return {"srt": as_srt, "vtt": as_vtt}[form](transcript)

    def _reference(self) -> str:
        reference = self.fields.get("reference")
        return "" if reference is None else f"  reference:\t{printable(reference)}\n"


def results_of(
    arguments: argparse.Namespace, recogniser: Recogniser, sources: list[Source]
) -> Iterator[Result]:
    """Transcribes the files, as the arguments of audio, output and cutting say."""
    found = transcribe_sources(recogniser, sources, cutting_of(arguments))
    shown = bar(found, show=len(sources) > 1, total=len(sources), unit="file")
    return (Result(done, arguments.nbest) for done in shown)


def show(arguments: argparse.Namespace, results: Iterable[Result]) -> int:
    """Prints or writes them.

    Args:
        arguments: with those of :func:`add_output_arguments`.
        results: of each file.

    Returns:
        The exit code: 1 if a file could not be transcribed.
    """
    if arguments.output:
        return _write(arguments.output, arguments.format, results)
    return _print(arguments.format, results)


def _print(form: str, results: Iterable[Result]) -> int:
    """To stdout, each file as soon as it is transcribed, but for a document of JSON."""
    failed, together = 0, []
    for result in results:
        failed += "error" in result.fields
        if form == "json":
            together.append(result.fields)
        elif form == "jsonl":
            _say(as_json(result.fields))
        elif "error" in result.fields:
            _complain(result)
        elif form == "text":
            _say(f"{printable(result.audio)}\t{result.rendered(form)}")
        else:
            _say(result.rendered(form))
    if form == "json":
        _say(as_json(together, indent=1))
    return FAILED if failed else OK


def _write(folder: Path, form: str, results: Iterable[Result]) -> int:
    """A file for each, as soon as those are transcribed that are heard together; what cannot be
    transcribed has none."""
    failed, files, seen, seconds = 0, {}, 0, 0.0
    for result in results:
        seen += 1
        if "error" in result.fields:
            failed += 1
            _complain(result)
        else:
            seconds += result.fields["seconds"]
            # Of a name that is no text, the bytes are escaped, as in JSON.
            data = result.rendered(form).encode(errors="backslashreplace")
            files[result.done.source.name + SUFFIXES[form]] = data
        if seconds > WINDOW_SECONDS or seen >= WINDOW_FILES:
            write_own(folder, files)
            files, seen, seconds = {}, 0, 0.0
    write_own(folder, files)
    return FAILED if failed else OK


def _complain(result: Result) -> None:
    say(f"error: {printable(result.fields['error'])}\n", sys.stderr)


def _say(text: str) -> None:
    say(text, sys.stdout)
