"""The Pareto front as a picture and as a page that opens without a network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure

from todm_sb.search.budget import format_cost
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.utils.files import write_atomic

# Units of the cost axis: label, and how many base units one is.
AXES = {
    "params": ("million parameters", 1e6),
    "macs": ("million multiply-accumulates for {seconds:g} s of audio", 1e6),
    "bytes": ("weights, MB", 1e6),
    "bytes_int8": ("weights in 8 bits, MB", 1e6),
    "latency": ("ms for {seconds:g} s of audio", 1e-3),
}
COLOURS = ("tab:blue", "tab:orange", "tab:green")


def draw_png(result: SearchResult, path: Path) -> None:
    """Draws the subnets that each method evaluated, their fronts, and the best for each budget."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for (name, ids), colour in zip(result.methods.items(), COLOURS, strict=False):
        subnets = result.of(name)
        front = result.front(subnets)
        label = f"{name}, {len(ids)} subnets"
        axes.plot(*_xy(result, subnets), ".", color=colour, alpha=0.25)
        axes.step(*_xy(result, front), "o-", where="post", color=colour, markersize=4, label=label)
    for i, budget in enumerate(result.budgets):
        axes.axvline(_scaled(result, budget), color="0.7", linestyle=":", zorder=0)
        best = [result.best(budget)]
        once = None if i else "best within a budget"
        axes.plot(*_xy(result, best), "*", color="tab:red", markersize=12, label=once)
    axes.set(xlabel=_axis_label(result), ylabel="word error rate on the dev set, %")
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    # Workers of one search end at the same time.
    write_atomic(path, picture.getvalue())


def write_html(result: SearchResult, path: Path) -> None:
    """Writes the same as an interactive page, which shows each subnet under the pointer."""
    page = go.Figure()
    for name, ids in result.methods.items():
        front = result.front(result.of(name))
        page.add_scatter(
            **_hoverable(result, result.of(name)),
            name=f"{name}, {len(ids)} subnets",
            mode="markers",
            opacity=0.4,
        )
        page.add_scatter(
            **_hoverable(result, front),
            name=f"{name}, front",
            mode="lines+markers",
            line_shape="hv",
        )
    page.add_scatter(
        **_hoverable(result, [result.best(budget) for budget in result.budgets]),
        name="best within a budget",
        mode="markers",
        marker={"symbol": "star", "size": 14},
    )
    for budget in result.budgets:
        page.add_vline(_scaled(result, budget), line_dash="dot", line_color="gray")
    page.update_layout(
        xaxis_title=_axis_label(result), yaxis_title="word error rate on the dev set, %"
    )
    write_atomic(path, page.to_html(include_plotlyjs=True))


def _axis_label(result: SearchResult) -> str:
    return AXES[result.cost][0].format(seconds=result.seconds)


def _scaled(result: SearchResult, cost: float) -> float:
    return cost / AXES[result.cost][1]


def _xy(result: SearchResult, subnets: list[Evaluated]) -> tuple[list[float], list[float]]:
    costs = [_scaled(result, subnet.costs[result.cost]) for subnet in subnets]
    return costs, [subnet.wer for subnet in subnets]


def _hoverable(result: SearchResult, subnets: list[Evaluated]) -> dict[str, Any]:
    x, y = _xy(result, subnets)
    texts = [
        "<br>".join(
            [
                subnet.config.id,
                *(f"{heading} {text}" for heading, text in subnet.config.describe().items()),
                f"{format_cost(subnet.costs[result.cost], result.cost)}, WER {subnet.wer:.2f} %",
            ]
        )
        for subnet in subnets
    ]
    return {"x": x, "y": y, "text": texts, "hoverinfo": "text"}
