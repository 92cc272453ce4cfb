"""Probes: subnets whose times on a device tell those of all subnets, and how both are written down.

Nothing here imports PyTorch: devices read it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import read_record
from todm_sb.utils.schema import (
    anything,
    integer,
    mapping,
    nullable,
    one_of,
    parse_json,
    positive,
    sequence,
    table,
    text,
)

# What a probe's folder says of it.
CARD = "probe.json"
PRECISIONS = ("float32", "int8")
FORMAT, VERSION = "todm_sb latency", 1

_ID = text("[0-9a-f]{16}")
_CARD = {"subnet": anything, "precision": one_of(*PRECISIONS), "network": _ID}
_check_card = mapping(_CARD)
_check_table = mapping(
    {
        "format": one_of(FORMAT),
        "version": one_of(VERSION),
        "device": table(text("[a-z_]{1,40}"), text(r"[^\n]{0,200}"), 20),
        "seconds": positive,
        "measured": sequence(
            mapping(
                {
                    "folder": text(r"[^\n]{1,4096}"),
                    "threads": integer(1, 1024),
                    "latency": positive,
                    "probe": nullable(_check_card),
                }
            ),
            1,
            100_000,
        ),
    }
)


def probes(space: SearchSpace) -> list[SubnetConfig]:
    """The subnets to time: all layers alike, of the most and of the fewest layers, at their largest
    but in one dimension, in each of its choices."""
    largest = {key: values[-1] for key, values in space.choices}
    variants = [largest]
    variants += [{**largest, key: c} for key, values in space.choices for c in values[:-1]]
    depths = (space.n_layers, space.min_layers)

    def wanted(config: SubnetConfig) -> bool:
        return len(config.layers) in depths and dict(next(config.active())[1]) in variants

    return [config for config in space.uniform() if wanted(config)]


def network_id(config: dict[str, Any], space: SearchSpace) -> str:
    """Tells supernets of other shapes apart: their times are not each other's.

    Args:
        config: arguments of the network, as it is deployed.
        space: of its subnets.
    """
    described = json.dumps({"network": config, "space": space.to_dict()}, sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def read_card(folder: Path) -> dict[str, Any] | None:
    """What a folder says of its probe; None of one that is not a probe's.

    Raises:
        ConfigError: if it says nonsense.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    card = _parsed(path)
    _check_card(card, str(path))
    SubnetConfig.from_dict(card["subnet"])
    return card


def is_table(path: Path) -> bool:
    """Whether a file is one of ``todm-sb latency --out``, of whatever version."""
    return read_record(path).get("format") == FORMAT


def read_table(path: Path) -> dict[str, Any]:
    """What ``todm-sb latency --out`` wrote.

    Raises:
        ConfigError: if it is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: todm-sb latency writes it on the device")
    data = _parsed(path)
    _check_table(data, str(path))
    return data


def _parsed(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
