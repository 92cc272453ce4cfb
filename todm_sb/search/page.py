"""The Pareto front as a page: one file, no network, and each subnet told of when pointed at."""

from __future__ import annotations

import html
import io
import json
from pathlib import Path
from string import Template
from typing import Any

import matplotlib

from todm_sb.search.budget import format_cost
from todm_sb.search.figures import draw, in_units, title, wer_range, xy
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.utils.files import write_atomic
from todm_sb.utils.tables import scored_text

TEMPLATE = Path(__file__).with_name("page.html")


def write_html(result: SearchResult, path: Path) -> None:
    """Writes picture, text of each subnet under the pointer, and a table of the front."""
    svg, points = _picture(result)
    shown = {
        "title": html.escape(title(result)),
        "about": html.escape(_about(result)),
        "svg": svg,
        # Whatever a text holds, it does not end the script that it is in.
        "points": json.dumps(points, separators=(",", ":")).replace("<", "\\u003c"),
        "table": _table([_row(result, subnet) for subnet in result.front()]),
    }
    write_atomic(path, Template(TEMPLATE.read_text(encoding="utf-8")).substitute(shown))


def _picture(result: SearchResult) -> tuple[str, list[list[Any]]]:
    """The picture as SVG; and where each subnet is in it, from the left and from the top as shares
    of its size, with the text for it."""
    figure, axes = draw(result)
    file = io.StringIO()
    # Letters are the browser's, and the same result gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pareto"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue()
    front = result.front()
    _, high = wer_range(front)
    # Of two at one place, the page takes the last.
    subnets = [*(s for s in result.subnets if s not in front), *front]
    places = [(x, min(y, high)) for x, y in zip(*xy(result, subnets), strict=True)]
    shares = figure.transFigure.inverted().transform(axes.transData.transform(places))
    points = [
        [round(float(x), 4), round(1 - float(y), 4), _text(result, subnet)]
        for (x, y), subnet in zip(shares, subnets, strict=True)
    ]
    return svg[svg.index("<svg") :], points


def _about(result: SearchResult) -> str:
    front = result.front()
    best = front[-1]
    return (
        f"{len(front)} of {len(result.subnets)} subnets are on the Pareto front, the best has "
        f"{best.wer:.2f} % at {format_cost(best.costs[result.cost], result.cost)}. "
        f"Error rates are of networks in {result.precision}. {scored_text(result.scored)}"
    )


def _text(result: SearchResult, subnet: Evaluated) -> str:
    sizes = [f"{heading} {text}" for heading, text in subnet.config.describe().items()]
    return "\n".join(
        [subnet.config.id, f"WER {subnet.wer:.2f} %", *in_units(result, subnet), *sizes]
    )


def _row(result: SearchResult, subnet: Evaluated) -> dict[str, str]:
    return {
        "subnet": subnet.config.id,
        result.cost: format_cost(subnet.costs[result.cost], result.cost),
        "WER %": f"{subnet.wer:.2f}",
        **subnet.config.describe(),
    }


def _table(rows: list[dict[str, str]]) -> str:
    header = dict.fromkeys(heading for row in rows for heading in row)
    cells = [("th", header), *(("td", [row.get(key, "") for key in header]) for row in rows)]
    lines = [
        "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"
        for tag, texts in cells
    ]
    return "\n".join(lines)
