"""``todm-sb report``: report.md and report.html from all results below a folder.

todm-sb report results/mini/1234
todm-sb report results/compare-mini

A table of the runs, curves, the Pareto front of a search, the search space, commands and versions;
the page holds its pictures and opens without a network.
"""

from __future__ import annotations

import argparse

from todm_sb.cli.main import OK
from todm_sb.experiments.report.document import write_report
from todm_sb.utils.arguments import path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``report``."""
    parser.add_argument("folder", type=path, help="output_folder of a training or a comparison")


def run(arguments: argparse.Namespace) -> int:
    """Writes the report and prints its paths.

    Returns:
        The exit code.

    Raises:
        ConfigError: if there is nothing to report.
    """
    for written in write_report(arguments.folder):
        print(written)
    return OK
