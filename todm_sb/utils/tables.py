"""Markdown tables, and the line below one that tells what its figures are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table_of(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table of rows by heading; a row may lack a cell."""
    header = list(dict.fromkeys(heading for row in rows for heading in row))
    return markdown_table(header, [[row.get(heading, "") for heading in header] for row in rows])


def scored_text(scored: Mapping[str, Any]) -> str:
    """What error rates are of, in one line.

    Args:
        scored: ``utterances``, ``words``, ``undecodable`` and ``left_out``, as
            :func:`todm_sb.training.evaluation.results_of` returned them.
    """
    parts = [f"Error rates of {scored['utterances']:,} utterances, {scored['words']:,} words"]
    if scored["undecodable"]:
        n = scored["undecodable"]
        parts.append(f"{n:,} of them could not be decoded, their words count as deleted")
    parts += [f"{n:,} left out: {cause}" for cause, n in scored["left_out"].items()]
    return "; ".join(parts) + "."


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up as plain text too."""
    rows = [header, *rows]
    columns = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, columns)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (n + 2) for n in columns) + "|", *lines[1:]])
