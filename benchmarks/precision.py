"""A training step of the mini recipe in bfloat16 against one in float32, on one thread.

python benchmarks/precision.py [--repeats 10] [--processor-time]
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable

import torch
from measure import Row, parse_repeats, print_table, time_in_turn
from watching import SECONDS, B, U, make_batch, make_brain


def steps(folder: str, precision: str) -> Callable[[], object]:
    """Training steps, one a call; all precisions train the same subnets on the same batches."""
    torch.manual_seed(0)
    brain = make_brain(folder, precision)
    batches = itertools.cycle([make_batch(brain.hparams.vocab_size) for _ in range(4)])

    def step() -> None:
        brain.step += 1
        brain.fit_batch(next(batches))

    return step


def main() -> None:
    """Print the table."""
    repeats, clock = parse_repeats(__doc__.splitlines()[0], 10)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        half, full = (steps(f"{folder}/{precision}", precision) for precision in ("bf16", "fp32"))
        ours, peer = time_in_turn(half, full, repeats=repeats, clock=clock)
    claim = "training step in bfloat16, peer the same in float32"
    shapes = f"mini.yaml, B {B}, {SECONDS} s, U {U}"
    print_table([Row(claim, shapes, 1e3 * ours.median, 1e3 * peer.median, "ms", 1.0)])


if __name__ == "__main__":
    main()
