"""Options that say how audio is cut and put into batches; nothing here needs PyTorch."""

from __future__ import annotations

import argparse
import math
from typing import Any

from todm_sb.inference.recogniser import BATCH_SECONDS, Cutting
from todm_sb.inference.segments import SHORTEST_LIMIT
from todm_sb.utils.arguments import positive


def add_cutting_arguments(group: Any) -> None:
    """Adds the options of :class:`todm_sb.inference.recogniser.Cutting` to a parser or a group."""
    group.add_argument(
        "--segment",
        type=_seconds,
        metavar="SECONDS|off",
        help="cut longer audio where it is quiet (the longest utterance of training)",
    )
    group.add_argument(
        "--batch-seconds",
        type=positive,
        default=BATCH_SECONDS,
        metavar="X",
        help=f"audio transcribed at once ({BATCH_SECONDS:g})",
    )


def _seconds(text: str) -> float:
    if text == "off":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST_LIMIT <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be off, or at least {SHORTEST_LIMIT:g}, not {text}")
    return seconds


def cutting_of(arguments: argparse.Namespace) -> Cutting:
    """How the arguments want audio cut."""
    return Cutting(arguments.segment, arguments.batch_seconds)
