"""What each of several processes under torchrun does: the recipe, and, when they begin to train, a
look at what they send each other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import distributed, nn

from todm_sb.training import train
from todm_sb.training.distributed import (
    SUM_DTYPES,
    all_gather,
    all_reduce_gradients,
    begin_training,
    n_ranks,
    rank,
)

# Elements of the gradients that are timed: those of supernet.yaml, or few.
ELEMENTS = {"paper": 73_500_000, "toy": 10_000}

Row = dict[str, object]


def main(command: Sequence[str], found: Path, size: str) -> None:
    """Trains.

    Args:
        command: of the recipe.
        found: the file for the rows of the table.
        size: ``toy`` or ``paper``.
    """
    torch.set_num_threads(1)  # as torchrun has it

    def begin(backend: str) -> None:
        begin_training(backend)
        rows = look(backend, ELEMENTS[size])
        if rank() == 0:
            found.write_text(json.dumps(rows))

    train.begin_training = begin
    train.main(command)


def look(backend: str, n: int) -> list[Row]:
    """Rows of the table; every process calls this.

    Args:
        backend: that they talk by.
        n: elements of the gradients that are timed.
    """
    own = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", own) if backend == "nccl" else torch.device("cpu")
    places = all_gather(torch.cuda.current_device() if backend == "nccl" else own)
    total = torch.full((1000,), float(rank() + 1), device=device)
    distributed.all_reduce(total)
    expected = n_ranks() * (n_ranks() + 1) / 2
    rows: list[Row] = [
        {"what": "each has a device of its own", "ok": places == list(range(n_ranks()))},
        {"what": f"sums by {backend}", "ok": bool((total == expected).all())},
    ]
    for name, dtype in SUM_DTYPES.items():
        p = nn.Parameter(torch.zeros(n, device=device))
        p.grad = torch.full_like(p, 2.0 ** rank())
        all_reduce_gradients([p], dtype)  # to warm up
        exact = bool((p.grad == 2.0 ** n_ranks() - 1).all()) if n_ranks() > 1 else True
        _synchronize(device)
        begin = time.perf_counter()
        all_reduce_gradients([p], dtype)
        _synchronize(device)
        taken = 1e3 * (time.perf_counter() - begin)
        millions = p.numel() / 1e6
        what = f"sum of {millions:g} M gradients in {name}"
        rows.append({"what": what, "ms": round(taken, 2), "ok": exact})
    return rows


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
