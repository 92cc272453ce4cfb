"""Which options ScaledAdam can have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from todm_sb.utils.errors import ConfigError, quoted


def check_options(group: dict[str, Any]) -> None:
    """Checks the options of a parameter group.

    Args:
        group: the options by name.

    Raises:
        ConfigError: that names the first option out of its range.
    """
    scale = _number(group["clipping_scale"])
    least, most = _number(group["param_min_rms"]), _number(group["param_max_rms"])
    periods = [group["size_update_period"], group["clipping_update_period"]]
    size_period, clipping_period = (type(n) is int and n >= 1 for n in periods)
    betas = group["betas"]
    are_betas = isinstance(betas, Sequence) and len(betas) == 2
    for name, valid, wanted in (
        ("lr", 0 <= _number(group["lr"]) < math.inf, "a finite number of at least 0"),
        ("clipping_scale", group["clipping_scale"] is None or scale > 0, "positive or None"),
        ("betas", are_betas and all(0 <= _number(b) < 1 for b in betas), "two numbers in [0, 1)"),
        ("scalar_lr_scale", 0 <= _number(group["scalar_lr_scale"]) < math.inf, "at least 0"),
        ("eps", 0 < _number(group["eps"]) < math.inf, "positive"),
        ("param_min_rms", least > 0, "positive"),
        ("param_max_rms", most > least, "above param_min_rms"),
        ("scalar_max", _number(group["scalar_max"]) > 0, "positive"),
        ("size_update_period", size_period, "a whole number of at least 1"),
        ("clipping_update_period", clipping_period, "a whole number of at least 1"),
    ):
        if not valid:
            value = " ".join(quoted(group[name]).split())
            raise ConfigError(f"ScaledAdam: {name} must be {wanted}, not {value}")


def _number(value: Any) -> float:
    """A number, or a real tensor of one, as a float; NaN, which no range holds, of all else."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.item()
    return float(value) if isinstance(value, Real) else math.nan
