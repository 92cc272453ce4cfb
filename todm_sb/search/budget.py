"""Budgets as people write them: ``5M`` parameters, ``1.2G`` multiply-accumulates, ``80ms``."""

from __future__ import annotations

import math
import re

from todm_sb.utils.errors import ConfigError, quoted

# What a subnet can be searched by: unit, and an example of a budget.
COSTS = {
    "params": ("parameters", "5M"),
    "macs": ("MACs", "1.2G"),
    "bytes": ("bytes", "20M"),
    "bytes_int8": ("bytes", "5M"),
    "latency": ("s", "80ms"),
}

_FACTORS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
_SECONDS = {"ms": 1e-3, "s": 1}


def parse_budget(text: str, cost: str) -> float:
    """A budget as a number of parameters, multiply-accumulates, bytes or seconds.

    Args:
        text: a number with ``k``, ``M`` or ``G`` or none; with ``ms`` or ``s`` for latency.
        cost: one of :data:`COSTS`.

    Raises:
        ConfigError: if it is not understood, or not positive and finite.
    """
    factors = _SECONDS if cost == "latency" else _FACTORS
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([A-Za-z]*)\s*", text)
    factor = factors.get(match[2]) if match else None
    budget = float(match[1]) * factor if match and factor else 0.0
    if not 0 < budget < math.inf:
        raise ConfigError(f"budget {quoted(text)} is no {cost}: write it like {COSTS[cost][1]}")
    return budget if cost == "latency" else round(budget)


def format_cost(value: float, cost: str) -> str:
    """A cost for people, e.g. ``0.93 M``.

    Args:
        value: parameters, multiply-accumulates, bytes or seconds.
        cost: one of :data:`COSTS`.
    """
    if cost == "latency":
        return f"{1e3 * value:.4g} ms"
    for suffix in ("G", "M", "k"):
        if value >= _FACTORS[suffix]:
            return f"{value / _FACTORS[suffix]:.4g} {suffix}"
    return f"{value:.4g}"
