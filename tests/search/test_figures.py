import random
import re
from dataclasses import replace

import pytest
from test_pareto import SPACE, some_result

from todm_sb.search.budget import COSTS
from todm_sb.search.figures import draw, draw_png, in_units, wer_range
from todm_sb.search.pareto import Evaluated, SearchResult


def result_of(rates, cost="params", **options):
    """Different subnets of given error rates, each dearer than the one before."""
    rng, configs = random.Random(0), {}
    while len(configs) < len(rates):
        configs[SPACE.random(rng)] = None
    subnets = tuple(
        Evaluated(config, rate, {cost: 1e6 * (i + 1)})
        for i, (config, rate) in enumerate(zip(configs, rates, strict=True))
    )
    ids = tuple(subnet.config.id for subnet in subnets)
    return SearchResult(cost, 10.0, SPACE, subnets, {"NSGA-II": ids}, **options)


@pytest.mark.parametrize("result", [some_result(), replace(some_result(n=1), budgets=())])
def test_the_picture_is_a_png(tmp_path, result):
    draw_png(result, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost_has_an_axis_and_a_unit(cost):
    result = result_of([3.0], cost)
    (text,) = in_units(result, result.subnets[0])
    number, label = re.fullmatch(r"(\S+) (.+)", text).groups()
    _, axes = draw(result)
    assert axes.get_xlabel() == label
    assert float(number) == axes.lines[0].get_xdata()[0] == (1e9 if cost == "latency" else 1)


def shown(rates):
    low, high = wer_range(result_of(rates).front())
    return [rate for rate in rates if low < rate < high]


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        # The front is shown, with what is near; what hardly works is not, however much of it.
        ([6.0, 5.0, 4.0, 3.0, 6.5, 100.0], [6.0, 5.0, 4.0, 3.0, 6.5]),
        ([6.0, 5.0, 4.0, 3.0] + [100.0] * 20, [6.0, 5.0, 4.0, 3.0]),
        # Nor the beginning of a front that is far from the rest.
        ([97.0, 4.0, 3.5, 3.0], [4.0, 3.5, 3.0]),
        ([97.0, 60.0, 3.2, 3.1, 3.0], [3.2, 3.1, 3.0]),
        # Two have no middle.
        ([97.0, 3.0], [97.0, 3.0]),
        # One has a neighbourhood too, and so has no error.
        ([3.0, 3.2, 100.0], [3.0, 3.2]),
        ([0.0, 0.04, 100.0], [0.0, 0.04]),
    ],
)
def test_the_front_and_its_neighbourhood_are_shown(rates, expected):
    assert shown(rates) == expected


def test_the_front_fills_most_of_the_picture_whatever_else_there_is():
    rates = [6.0, 5.0, 4.0, 3.0]
    assert wer_range(result_of(rates).front()) == wer_range(result_of([*rates, 100.0]).front())
    low, high = wer_range(result_of(rates).front())
    assert 3 / (high - low) > 0.6


def test_what_is_above_is_marked_at_the_edge_and_told():
    result = result_of([6.0, 5.0, 4.0, 3.0, 80.0, 90.5])
    _, axes = draw(result)
    _, high = axes.get_ylim()
    marked = [
        (x, y)
        for line in axes.lines
        if line.get_marker() == "^"
        for x, y in zip(*line.get_data(), strict=True)
    ]
    assert marked == [(5.0, high), (6.0, high)]
    assert axes.get_legend().get_title().get_text() == "▲ 2 above, up to 90.5 %"
    assert not draw(result_of([3.0]))[1].get_legend().get_title().get_text()


def test_the_front_is_drawn_over_the_subnets_and_a_budget_far_away_does_not_widen_the_picture():
    result = result_of([6.0, 5.0, 5.5, 3.0], budgets=(2e6, 1e9))
    _, axes = draw(result)
    lines = {line.get_label(): line for line in axes.lines}
    front = lines["Pareto front, 3 subnets"]
    assert list(front.get_xdata()) == [1.0, 2.0, 4.0]
    assert front.get_zorder() > lines["NSGA-II, 4 subnets"].get_zorder()
    assert axes.get_xlim() == pytest.approx((0.88, 4.12))
