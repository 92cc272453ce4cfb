"""Runs made by earlier versions: one table from what their recipes say to what is said now."""

from __future__ import annotations

import re

# Patterns of the text of a ``hyperparams.yaml``, and what stands in their place.
RENAMED: dict[str, str] = {
    r"\btodm_sb\.checkpoints\.": "todm_sb.training.checkpoints.",
    r"\btodm_sb\.precision\.": "todm_sb.training.precision.",
    r"\btodm_sb\.supernet\.sandwich\.Objective\b": "todm_sb.supernet.objective.Objective",
    r"\bffn_dims: !apply:getattr(\s+- \S+\s+- )max_ffn_dims\b": r"sizes: !apply:getattr\1sizes",
    # Without reference_batch_seconds, as then, a step is a reference batch.
    r"(\.pruning\.Pruning\b[^!]*?)\bwarmup_steps(?=\s*:)": r"\1warmup_batches",
    r"(\.schedule\.Schedule\b[^!]*?)\bfirst_step(?=\s*:)": r"\1first_batch",
    r"(\.schedule\.Schedule\b[^!]*?)\blast_step(?=\s*:)": r"\1last_batch",
}


def modernise(text: str) -> str:
    """The ``hyperparams.yaml`` of a run as this version would have written it."""
    for old, new in RENAMED.items():
        text = re.sub(old, new, text)
    return text
