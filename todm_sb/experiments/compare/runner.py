"""Runs cells, several at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import torch

from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.progress import bar

# Seconds between looks at the running cells.
POLL = 0.2


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
        jobs: cells at a time; they share the cores evenly, unless OMP_NUM_THREADS is set, and
            each has a GPU of its own, as long as there is one more and no ``--device`` names one.
        progressbar: show how many are finished, and what runs.
        ended: called with each cell that was run here, failed ones too, as soon as it ends.

    Raises:
        ConfigError: before anything is run, if a cell was run with other options; at the end, if
            another process has meanwhile run it so, or cells failed.
    """
    refuse_other_options(runs, cells)
    waiting = [cell for cell in cells if runs.state(cell) is not State.FINISHED]
    running: dict[str, tuple[Cell, subprocess.Popen, str | None]] = {}
    problems: list[str] = []
    environment, gpus = _environment(jobs), _gpus(runs)
    done = len(cells) - len(waiting)
    with bar(total=len(cells), initial=done, unit="cell", show=progressbar) as shown:
        try:
            while waiting or running:
                for cell in list(waiting):
                    if len(running) == jobs:
                        break
                    taken = [gpu for _, _, gpu in running.values()]
                    gpu = min(gpus, key=taken.count, default=None)
                    own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
                    if process := runs.start(cell, {**environment, **own}):
                        running[cell.id] = (cell, process, gpu)
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
                for cell, process, _ in list(running.values()):
                    if process.poll() is not None:
                        del running[cell.id]
                        shown.update()
                        ended(cell)
                        if process.returncode:
                            problems.append(_failure(runs, cell, process.returncode))
        finally:
            for _, process, _ in running.values():
                process.terminate()
                process.wait()
    if problems:
        raise ConfigError("; ".join(problems))


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
    """Those that cells are spread over, as CUDA_VISIBLE_DEVICES calls them; none where a cell
    takes the one that there is, or that is named."""
    n = torch.cuda.device_count()
    if n < 2 or any(option.startswith("--device=cuda:") for option in runs.run_options):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:n] if visible else [str(i) for i in range(n)]


def _failure(runs: Runs, cell: Cell, returncode: int) -> str:
    output = runs.folder(cell) / "output.txt"
    if returncode < 0:
        reason = f"killed by {signal.Signals(-returncode).name}"
    else:
        lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"{cell.id} failed ({reason}), see {output}"
