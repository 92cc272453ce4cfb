"""Finds the subcommand and runs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from io import TextIOWrapper

from todm_sb import __version__
from todm_sb.utils.errors import one_line_errors
from todm_sb.utils.extras import named_packages
from todm_sb.utils.hub import is_onnx_folder, model_folder
from todm_sb.utils.own_modules import import_own

OK, FAILED = 0, 1
OWN = "--import"
# That were given, as arguments again: for the record, and for what is called in turn.
imports: list[str] = []

# Only the subcommand that is called is imported: help does not wait for PyTorch.
COMMANDS: dict[str, str] = {
    "check-data": "Find what is wrong with a manifest before training.",
    "compare": "Compare a supernet's subnets with networks trained by themselves.",
    "evaluate": "Measure error rates on any test set, and compare networks.",
    "export": "Cut a subnet, or a whole supernet, out of a training run.",
    "inspect": "Check a bundle and say what it holds.",
    "latency": "Time ONNX networks on this device, for the search.",
    "manifest": "Write a manifest of a folder of audio and texts.",
    "plan": "Count what a training takes, and the least hours on given GPUs.",
    "report": "Write a report of all results below a folder.",
    "search": "Search a trained supernet for the best subnets.",
    "serve": "Serve a page that runs exported subnets in the browser.",
    "train": "Train a recipe's supernet and measure its subnets.",
    "transcribe": "Transcribe audio files with an exported network.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``todm-sb``.

    Args:
        argv: arguments; those of the process when None.

    Returns:
        The exit code; see :mod:`todm_sb.cli`.

    Raises:
        SystemExit: with status 2, after one line on stderr, if the user can mend the cause; with
            130 on Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="todm-sb", description="Speech recognition by subnets.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        OWN,
        metavar="MODULE",
        action="append",
        help="first, and as often as needed: a module of your own that registers encoders or "
        "dimensions",
    )
    with one_line_errors():
        given = _import_own(argv)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name in given[:1]:
            with one_line_errors(), named_packages(f"todm-sb {name}"):
                module = import_module(f"todm_sb.cli.{_module(name, given[1:])}")
                if hasattr(module, "main"):  # its command line is its own: keys of a recipe
                    return module.main(given[1:])
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    with one_line_errors(), named_packages(f"todm-sb {arguments.command}"):
        return arguments.run(arguments)


def _module(name: str, argv: Sequence[str]) -> str:
    """The module of a subcommand. Transcribing has one more, without PyTorch: for a folder of ONNX
    models, and where there is no PyTorch."""
    if name == "transcribe":
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--model", nargs="?")
        model = parser.parse_known_args(argv)[0].model
        light = find_spec("torch") is None
        if light or (model and is_onnx_folder(model_folder(model))):
            return "transcribe_onnx"
    return name.replace("-", "_")


def _import_own(argv: Sequence[str]) -> Sequence[str]:
    """Imports what ``--import`` names at the beginning.

    Returns:
        The arguments after it.
    """
    imports.clear()
    while argv[:1]:
        option, equals, module = argv[0].partition("=")
        if option != OWN or not (equals or argv[1:]):
            break
        module = module if equals else argv[1]
        import_own(module, OWN)
        imports.append(f"{OWN}={module}")
        argv = argv[1 if equals else 2 :]
    return argv
