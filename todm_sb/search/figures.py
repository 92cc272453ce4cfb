"""The Pareto front as a picture: the front on top, outliers at the edge."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.search.probes import PRECISIONS
from todm_sb.utils.files import write_atomic

# Costs: name, unit of an axis, and how many base units that is.
AXES = {
    "params": ("parameters", "million parameters", 1e6),
    "macs": ("computation", "million multiply-accumulates for {seconds:g} s of audio", 1e6),
    "bytes": ("size", "MB of weights in float32", 1e6),
    "bytes_int8": ("size in 8 bits", "MB of weights in 8 bits", 1e6),
    "latency": ("latency", "ms for {seconds:g} s of audio", 1e-3),
}


def draw(result: SearchResult) -> tuple[Figure, Axes]:
    """Draws the subnets that each method evaluated, the Pareto front, and the best for each budget.

    The axes hold all costs, and the error rates of :func:`wer_range`; a triangle at the upper edge
    is a subnet above them.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    front = result.front()
    low, high = wer_range(front)
    for i, (name, ids) in enumerate(result.methods.items()):
        subnets, label = result.of(name), f"{name}, {len(ids)} subnets"
        axes.plot(*xy(result, subnets), ".", color=f"C{i}", alpha=0.4, zorder=2, label=label)
        if len(result.methods) > 1:
            own = result.front(subnets)
            axes.step(*xy(result, own), where="post", color=f"C{i}", linewidth=1, zorder=3)
        _draw_above(axes, result, subnets, high, f"C{i}")
    label = f"Pareto front, {len(front)} subnets"
    axes.step(*xy(result, front), "o-k", where="post", markersize=5, zorder=4, label=label)
    _draw_above(axes, result, front, high, "black")
    for i, budget in enumerate(result.budgets):
        axes.axvline(_scaled(result, budget), color="0.7", linestyle=":", zorder=1)
        label = "_" if i else "best within a budget"
        (cost,), (rate,) = xy(result, [result.best(budget)])
        (star,) = axes.plot(cost, min(rate, high), "*", label=label, color="tab:red", zorder=7)
        star.set(markersize=12, clip_on=False)
    axes.set(
        xlabel=AXES[result.cost][1].format(seconds=result.seconds),
        ylabel=f"word error rate {_of_precision(result)}on the dev set, %",
        xlim=_cost_range(result),
        ylim=(low, high),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", title=_above_text(result, high))
    return figure, axes


def draw_png(result: SearchResult, path: Path) -> None:
    """Writes :func:`draw` as a PNG, with a title."""
    figure, axes = draw(result)
    axes.set_title(title(result))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    # Workers of one search end at the same time.
    write_atomic(path, picture.getvalue())


def wer_range(front: Iterable[Evaluated]) -> tuple[float, float]:
    """The error rates, in percent, that a picture shows: the front's, and half as much again above.

    A front often begins with a subnet that hardly works. Its rates count up to the one that is
    above their median by more than three times the median's distance from the best; so at least
    half of the front is shown.

    Args:
        front: at least one subnet.
    """
    rates = [subnet.wer for subnet in front]
    best, middle = min(rates), statistics.median_high(rates)
    top = max(rate for rate in rates if rate - middle <= 3 * (middle - best))
    span = max(top - best, best / 4, 0.1)
    return best - span / 10, top + span / 2


def title(result: SearchResult) -> str:
    """What the picture shows, in one line."""
    return (
        f"Subnets of one network: error rate {_of_precision(result)}against {AXES[result.cost][0]}"
    )


def _of_precision(result: SearchResult) -> str:
    """Of what networks the error rates are, unless of those that were trained."""
    return "" if result.precision == PRECISIONS[0] else f"in {result.precision} "


def in_units(result: SearchResult, subnet: Evaluated) -> list[str]:
    """Each cost that is known of a subnet, e.g. ``0.93 million parameters``."""
    return [
        f"{subnet.costs[cost] / unit:.4g} {label.format(seconds=result.seconds)}"
        for cost, (_, label, unit) in AXES.items()
        if cost in subnet.costs
    ]


def xy(result: SearchResult, subnets: Iterable[Evaluated]) -> tuple[list[float], list[float]]:
    """Cost, in the axis' unit, and error rate of each subnet."""
    points = [(_scaled(result, s.costs[result.cost]), s.wer) for s in subnets]
    return [x for x, _ in points], [y for _, y in points]


def _scaled(result: SearchResult, cost: float) -> float:
    return cost / AXES[result.cost][2]


def _cost_range(result: SearchResult) -> tuple[float, float]:
    """Of what was evaluated: a budget far beyond does not widen it."""
    costs, _ = xy(result, result.subnets)
    least, most = min(costs), max(costs)
    margin = (most - least) / 25 or most / 25
    return least - margin, most + margin


def _draw_above(
    axes: Axes, result: SearchResult, subnets: list[Evaluated], high: float, colour: str
) -> None:
    """Marks subnets of error rates above the picture at its edge."""
    costs, _ = xy(result, [subnet for subnet in subnets if subnet.wer > high])
    axes.plot(costs, [high] * len(costs), "^", color=colour, clip_on=False, zorder=6)


def _above_text(result: SearchResult, high: float) -> str | None:
    rates = [subnet.wer for subnet in result.subnets if subnet.wer > high]
    return f"▲ {len(rates)} above, up to {max(rates):.1f} %" if rates else None
