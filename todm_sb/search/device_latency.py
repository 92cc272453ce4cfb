"""A table of latencies from times that were taken on another device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from todm_sb.search.latency import LatencyTable
from todm_sb.search.probes import probes, read_table
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

# Of a projection's residual: beyond it, a probe is no combination of those that were timed.
TOLERANCE = 1e-6


def device_table(
    path: Path, space: SearchSpace, network: str, seconds: float, precision: str, threads: int
) -> tuple[LatencyTable, float]:
    """Reads and fits what ``todm-sb latency`` measured.

    Args:
        path: the file.
        space: of the supernet.
        network: see :func:`todm_sb.search.probes.network_id`.
        seconds: of audio, that the search is for.
        precision: one of :data:`todm_sb.search.probes.PRECISIONS`.
        threads: of the engine.

    Returns:
        The table, and by what part of itself it misses a measured time at most.

    Raises:
        ConfigError: if the file is of another network or audio length, has no times of this
            precision and these threads, or too few, or they are all noise.
    """
    data = read_table(path)
    own = [m for m in data["measured"] if m["probe"] and m["probe"]["network"] == network]
    if not own:
        raise ConfigError(
            f"{path} is of another network: time the probes that todm-sb latency RUN --probes "
            "writes of this run"
        )
    if data["seconds"] != seconds:
        raise ConfigError(
            f"{path} is of {data['seconds']:g} s of audio, not {seconds:g}: add "
            f"--seconds {data['seconds']:g}"
        )
    wanted = (precision, threads)
    measured = [m for m in own if (m["probe"]["precision"], m["threads"]) == wanted]
    if not measured:
        there = sorted({f"{m['probe']['precision']} with {m['threads']}" for m in own})
        raise ConfigError(
            f"{path} has no times of {precision} with {threads} threads, but of {', '.join(there)}"
        )
    configs = [space.check(SubnetConfig.from_dict(m["probe"]["subnet"])) for m in measured]
    try:
        table, missed = fit(space, zip(configs, [m["latency"] for m in measured], strict=True))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if space.max != space.min and table(space.max) <= table(space.min):
        raise ConfigError(
            f"{path} says that the largest subnet is as fast as the smallest: time them again, "
            "with more --repeats, longer --seconds, and nothing else running"
        )
    return table, missed


def fit(
    space: SearchSpace, measured: Iterable[tuple[SubnetConfig, float]]
) -> tuple[LatencyTable, float]:
    """The table whose sums are nearest to measured times, by the least squares of relative errors.

    A subnet's time is that of what all run, plus that of each layer, less what the choice of each
    dimension saves; layers at other depths are taken to be alike, since they are of one shape.

    Args:
        space: of the subnets.
        measured: subnets and their seconds; other subnets of :func:`probes` are combinations of
            them.

    Returns:
        The table, and by what part of itself it misses a measured time at most.

    Raises:
        ConfigError: if too few were timed.
    """
    configs, seconds = zip(*measured, strict=True)
    rows, times = np.array([_row(space, c) for c in configs]), np.array(seconds)
    for probe in probes(space):
        row = _row(space, probe)
        combined = np.linalg.lstsq(rows.T, row, rcond=None)[0] @ rows
        if np.abs(combined - row).max() > TOLERANCE:
            raise ConfigError(
                f"too few subnets were timed to know the time of {probe.to_json()}: time all probes"
            )
    solution = np.linalg.lstsq(rows / times[:, None], np.ones(len(times)), rcond=None)[0]
    missed = float(np.abs(rows @ solution / times - 1).max())
    rest, layer, *extra = map(float, solution)
    saved = dict(zip(_smaller(space), extra, strict=True))
    savings = {key: {c: -saved.get((key, c), 0.0) for c in of} for key, of in space.choices}
    return LatencyTable(rest, (layer,) * space.n_layers, (savings,) * space.n_layers), missed


def _smaller(space: SearchSpace) -> list[tuple[str, int]]:
    return [(key, choice) for key, values in space.choices for choice in values[:-1]]


def _row(space: SearchSpace, config: SubnetConfig) -> np.ndarray:
    """How often a subnet has what is to be known: 1, its layers, and each smaller choice."""
    active: list[dict[str, Any]] = [choices for _, choices in config.active()]
    counts = [sum(of[key] == choice for of in active) for key, choice in _smaller(space)]
    return np.array([1, len(active), *counts], float)
