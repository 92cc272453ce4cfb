"""What a test found, for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from todm_sb.space import SubnetConfig
from todm_sb.utils.errors import written_by
from todm_sb.utils.tables import scored_text, table_of


def read_results(run: Path) -> dict[str, list[dict[str, Any]]]:
    """What the tests of a run found, by the name of the test set; see
    :func:`todm_sb.training.evaluation.results_of`.

    Args:
        run: ``output_folder`` of train.py.

    Raises:
        ConfigError: if a file of them is damaged.
    """
    found = {}
    for path in sorted(run.glob("results_*.json")):
        with written_by("train.py", path):
            found[path.stem.removeprefix("results_")] = json.loads(path.read_text(encoding="utf-8"))
    return found


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of measured subnets, and a line that tells what the rates are of.

    Args:
        results: what :func:`todm_sb.training.evaluation.results_of` returned.
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
    return "\n\n".join([table_of(rows), *map(scored_text, results[:1])])
