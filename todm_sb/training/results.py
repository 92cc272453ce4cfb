"""What a test found, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from todm_sb.space import SubnetConfig
from todm_sb.utils.tables import scored_text, table_of


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of measured subnets, and a line that tells what the rates are of.

    Args:
        results: what :meth:`todm_sb.training.brain.TODMBrain.results` returned.
    """
    rows = [
        {
            "subnet": result["subnet"],
            **SubnetConfig.pick(result).describe(),
            "parameters": f"{result['parameters'] / 1e6:.2f} M",
            "WER %": f"{result['WER']:.2f}",
            "CER %": f"{result['CER']:.2f}",
        }
        for result in results
    ]
    scored = [scored_text(results[0])] if results and "utterances" in results[0] else []
    return "\n\n".join([table_of(rows), *scored])
