"""Options that say how a manifest is read, the same for each command that reads one."""

from __future__ import annotations

import argparse

from todm_sb.dataio.reading import AS_WRITTEN, DATA_ROOT, LETTER_CASES, Reading
from todm_sb.utils.arguments import path


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of :class:`todm_sb.dataio.reading.Reading`."""
    parser.add_argument("--data-root", type=path, help=f"folder that {DATA_ROOT} stands for")
    parser.add_argument("--text-column", help="that of the transcripts (wrds or wrd)")
    parser.add_argument("--letter-case", choices=LETTER_CASES, help="of the transcripts (keep)")


def reading_of(arguments: argparse.Namespace, own: Reading = AS_WRITTEN) -> Reading:
    """What these options say.

    Args:
        arguments: of the command line.
        own: how it is read where they say nothing.
    """
    return Reading(
        arguments.text_column or own.text_column,
        arguments.data_root or own.data_root,
        arguments.letter_case or own.letter_case,
    )
