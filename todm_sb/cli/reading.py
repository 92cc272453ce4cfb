"""Options that say how a manifest is read, the same for each command that reads one."""

from __future__ import annotations

import argparse

from todm_sb.dataio.reading import DATA_ROOT, LETTER_CASES, Reading
from todm_sb.utils.arguments import path


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of :class:`todm_sb.dataio.reading.Reading`."""
    parser.add_argument("--data-root", type=path, help=f"folder that {DATA_ROOT} stands for")
    parser.add_argument("--text-column", help="that of the transcripts (wrds or wrd)")
    parser.add_argument(
        "--letter-case", choices=LETTER_CASES, default="keep", help="of the transcripts (keep)"
    )


def reading_of(arguments: argparse.Namespace) -> Reading:
    """What these options say."""
    return Reading(arguments.text_column, arguments.data_root, arguments.letter_case)
