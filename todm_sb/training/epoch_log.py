"""What is written at the end of an epoch: log, TensorBoard, history, and what it has cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from todm_sb.training.curves import TrainingHistory
from todm_sb.training.distributed import n_ranks, rank
from todm_sb.training.stopwatch import Stopwatch
from todm_sb.utils.files import write_atomic


def log_epoch(
    loggers: Sequence[Any],
    folder: Path,
    stats: dict[str, float],
    train: dict[str, float],
    valid: dict[str, float],
    wer_of: dict[str, str],
) -> None:
    """Writes the figures of an epoch; every process must call this.

    Args:
        loggers: SpeechBrain's, or None.
        folder: of the run, for its history.
        stats: ``epoch`` and ``lr``.
        train, valid: figures by name.
        wer_of: what those of ``valid`` are of.
    """
    for logger in loggers:  # they write in the first process, but all must call them
        if logger is not None:
            logger.log_stats(stats, train, valid)
    if rank() == 0:
        TrainingHistory(folder).add(int(stats["epoch"]), {**stats, **train}, valid, wer_of)


def write_cost(folder: Path, optimizer_steps: int, stopwatch: Stopwatch) -> None:
    """Writes what training has cost so far to ``cost.json``; ``threads`` are those of a process.

    Args:
        folder: of the run.
        optimizer_steps: so far.
        stopwatch: of the run.
    """
    if rank() != 0:
        return
    cost = {
        "optimizer_steps": optimizer_steps,
        "processes": n_ranks(),
        "threads": torch.get_num_threads(),
        "seconds": stopwatch.seconds(),
    }
    write_atomic(folder / "cost.json", json.dumps(cost, indent=2) + "\n")
