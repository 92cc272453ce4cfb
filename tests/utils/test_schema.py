"""Checks of plain data: whatever the value is, it passes or is refused in one line."""

import math
from contextlib import suppress

import pytest
from junk import JUNK

from todm_sb.utils import schema
from todm_sb.utils.errors import ConfigError

NUMBER = schema.number(0, math.inf)
CHECKS = [
    *(schema.positive, schema.positive_or_infinite, schema.flag, NUMBER),
    *(schema.integer(1, 9), schema.number(0, 1e6), schema.text("[a-z]+"), schema.one_of(1, "any")),
    *(schema.nullable(NUMBER), schema.either(schema.flag, NUMBER), schema.sequence(NUMBER, 0, 9)),
    *(schema.mapping({"a": NUMBER}), schema.table(schema.text("[a-z]"), NUMBER, 9)),
]


@pytest.mark.parametrize("check", CHECKS)
def test_junk_passes_or_is_refused_in_one_line(check):
    for value in JUNK:
        with suppress(ConfigError):
            check(value, "x")


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        (schema.number(0, 1e6), r"a number in 0\.\.1e\+06"),
        (NUMBER, "a number from 0 on"),
        (schema.positive, "a number above 0"),
    ],
)
def test_an_integer_that_no_float_holds_is_refused(check, wanted):
    with pytest.raises(ConfigError, match=f"^x must be {wanted}, not 1000"):
        check(10**400, "x")
    with pytest.raises(ConfigError, match=f"^x must be {wanted}, not a longer one$"):
        check(10**5000, "x")
