"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of measured subnets, and a line that tells what the rates are of.

    Args:
        results: what :meth:`todm_sb.brain.TODMBrain.results` returned.
    """
    header = ("subnet", "layers", "FFN", "parameters", "WER %", "CER %")
    rows = [
        (
            result["subnet"],
            str(len(result["layers"])),
            widths(result["ffn_dims"]),
            f"{result['parameters'] / 1e6:.2f} M",
            f"{result['WER']:.2f}",
            f"{result['CER']:.2f}",
        )
        for result in results
    ]
    scored = [scored_text(results[0])] if results and "utterances" in results[0] else []
    return "\n\n".join([markdown_table(header, rows), *scored])


def scored_text(scored: Mapping[str, Any]) -> str:
    """What error rates are of, in one line.

    Args:
        scored: ``utterances``, ``words``, ``undecodable`` and ``left_out``, as
            :meth:`todm_sb.brain.TODMBrain.results` returned them.
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


def widths(ffn_dims: Sequence[int]) -> str:
    """FFN widths of the layers, runs of equal ones as ``width x layers``."""
    runs: list[list[int]] = []
    for width in ffn_dims:
        if runs and runs[-1][0] == width:
            runs[-1][1] += 1
        else:
            runs.append([width, 1])
    return ", ".join(f"{width} x {count}" for width, count in runs)
