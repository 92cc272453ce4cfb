"""Error rates against size, of subnets and of individual networks."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure


def drawn(data: dict[str, Any]) -> bytes:
    """Draws a picture a test set.

    Args:
        data: of :meth:`todm_sb.experiments.compare.tables.Comparison.to_dict`.

    Returns:
        A PNG.
    """
    splits = data["splits"]
    figure = Figure(figsize=(6 * len(splits), 4), layout="constrained")
    for axes, (split, tables) in zip(
        figure.subplots(1, len(splits), squeeze=False)[0], splits.items(), strict=True
    ):
        rows = [row for row in tables["sizes"] if "parameters" in row]
        sizes = [row["parameters"] / 1e6 for row in rows]
        for key, label in (("WER of the other", "individual networks"), ("WER", "subnets")):
            axes.plot(sizes, [row[key] for row in rows], "o-", label=label)
        axes.set(xlabel="million parameters", ylabel="word error rate, %", title=split)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    png = io.BytesIO()
    figure.savefig(png, dpi=100)
    return png.getvalue()
