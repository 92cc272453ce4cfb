"""Runs cells, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.progress import bar

# Seconds between looks at the running cells.
POLL = 0.2
VISIBLE = "CUDA_VISIBLE_DEVICES"


class _Running(NamedTuple):
    """A cell that runs here, and the environment that names its GPU."""

    cell: Cell
    process: subprocess.Popen
    gpu: dict[str, str]


def run_cells(
    runs: Runs,
    cells: Sequence[Cell],
    jobs: int = 1,
    progressbar: bool = True,
    ended: Callable[[Cell], None] = lambda cell: None,
) -> None:
    """Runs what is not finished of the cells; a failed cell does not keep the others from running.

    A cell that another process is running is waited for, and run here should that break off. When
    this function is left, by an exception too, so are its processes.

    Args:
        runs: where the cells are.
        cells: in this order.
        jobs: cells at a time; they share the cores evenly, unless OMP_NUM_THREADS is set, and the
            GPUs, unless ``--device`` names one.
        progressbar: show how many are finished, and what runs.
        ended: called with each cell that was run here, failed ones too, as soon as it ends.

    Raises:
        ConfigError: before anything is run, if a cell was run with other options; at the end, if
            another process has run it so since, or cells failed.
    """
    refuse_other_options(runs, cells)
    waiting = [cell for cell in cells if runs.state(cell) is not State.FINISHED]
    running: dict[str, _Running] = {}
    problems: list[str] = []
    environment, gpus = _environment(jobs), _gpus(runs)
    initial = len(cells) - len(waiting)
    with bar(total=len(cells), initial=initial, unit="cell", show=progressbar) as shown:
        try:
            while waiting or running:
                for cell in list(waiting):
                    if len(running) == jobs:
                        break
                    gpu = _freest(gpus, [x.gpu for x in running.values()])
                    if process := runs.start(cell, {**environment, **gpu}):
                        running[cell.id] = _Running(cell, process, gpu)
                    elif runs.state(cell) is State.FINISHED:
                        shown.update()
                    elif problem := _other_options(runs, cell):
                        problems.append(problem)
                    else:
                        continue  # it is running elsewhere
                    waiting.remove(cell)
                elsewhere = [f"{cell.id} elsewhere" for cell in waiting[:1]]
                shown.set_postfix_str(", ".join(list(running) or elsewhere))
                time.sleep(POLL)
                over = [x for x in running.values() if x.process.poll() is not None]
                for cell, process, _ in over:
                    del running[cell.id]
                    shown.update()
                    ended(cell)
                    if process.returncode:
                        problems.append(_failure(runs, cell, process.returncode))
        finally:
            _end(running.values())
    if problems:
        raise ConfigError("; ".join(problems))


def _end(running: Iterable[_Running]) -> None:
    for one in running:
        one.process.terminate()
        one.process.wait()


def refuse_other_options(runs: Runs, cells: Sequence[Cell]) -> None:
    """Protects what is on disk.

    Raises:
        ConfigError: if one of the cells was run with other options.
    """
    for cell in cells:
        if problem := _other_options(runs, cell):
            raise ConfigError(problem)


def _other_options(runs: Runs, cell: Cell) -> str | None:
    if runs.state(cell) is not State.OTHER_OPTIONS:
        return None
    return (
        f"{runs.folder(cell)} was run with other options ({runs.difference(cell)}): "
        "give another --output_folder, or delete it"
    )


def _environment(jobs: int) -> dict[str, str]:
    # Not every system tells which cores are ours.
    ours = getattr(os, "sched_getaffinity", None)
    cores = len(ours(0)) if ours else os.cpu_count() or 1
    threads = max(1, cores // jobs)
    # Threads that spin while they wait take the cores from the other cells.
    defaults = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return {**defaults, **os.environ}


def _gpus(runs: Runs) -> list[str]:
    """Those that cells are spread over, as :data:`VISIBLE` calls them; none where a cell takes the
    one that there is, or that is named."""
    n = torch.cuda.device_count()
    if n < 2 or any(option.startswith("--device=cuda:") for option in runs.run_options):
        return []
    visible = os.environ.get(VISIBLE)
    return visible.split(",")[:n] if visible else [str(i) for i in range(n)]


def _freest(gpus: Sequence[str], taken: Sequence[dict[str, str]]) -> dict[str, str]:
    """The GPU that the fewest cells have, as their environment names it; nothing of none."""
    return min(({VISIBLE: gpu} for gpu in gpus), key=taken.count, default={})


def _failure(runs: Runs, cell: Cell, returncode: int) -> str:
    output = runs.folder(cell) / "output.txt"
    if returncode < 0:
        reason = f"killed by {signal.Signals(-returncode).name}"
    else:
        lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"{cell.id} failed ({reason}), see {output}"
