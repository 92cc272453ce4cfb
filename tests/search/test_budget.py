import pytest

from todm_sb.search.budget import format_cost, parse_budget
from todm_sb.utils.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "cost", "value"),
    [
        ("5M", "params", 5_000_000),
        ("0.9 M", "params", 900_000),
        ("800k", "params", 800_000),
        ("123456", "params", 123_456),
        ("1.5G", "macs", 1.5e9),
        ("80ms", "latency", 0.08),
        (".2s", "latency", 0.2),
    ],
)
def test_a_budget_is_read_as_it_is_written(text, cost, value):
    assert parse_budget(text, cost) == pytest.approx(value)


def test_a_budget_of_parameters_is_a_whole_number():
    # 2.01 * 1e6 is 2009999.9999999998.
    assert parse_budget("2.01M", "params") == 2_010_000


@pytest.mark.parametrize(
    ("text", "cost"),
    [("", "params"), ("M", "params"), ("-5M", "params"), ("0M", "macs"), ("5T", "macs"),
     ("80ms", "params"), ("5M", "latency"), ("5", "latency"), ("1e6", "params"),
     ("9" * 400, "params"), ("9" * 301 + "G", "params"), ("9" * 400 + "s", "latency")],
)  # fmt: skip
def test_a_budget_that_makes_no_sense_is_refused_with_an_example(text, cost):
    example = {"params": "5M", "macs": "1.2G", "latency": "80ms"}[cost]
    with pytest.raises(ConfigError, match=f"write it like {example}"):
        parse_budget(text, cost)


@pytest.mark.parametrize(
    ("value", "cost", "text"),
    [(1_468_032, "params", "1.468 M"), (2.5e9, "macs", "2.5 G"), (0.0123, "latency", "12.3 ms"),
     (999, "params", "999")],
)  # fmt: skip
def test_a_cost_is_shown_with_its_unit(value, cost, text):
    assert format_cost(value, cost) == text
