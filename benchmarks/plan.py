"""``todm-sb plan`` against steps that are taken: their memory, and their time on this machine.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--repeats 3]

A sandwich step of a small supernet on one thread, in float32. The machine's peaks are measured: a
product of large matrices, and a copy. Peer is the step; a plan of its time is the least that there
can be, so that the ratio is below 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from measure import MB, Row, print_table, time_in_turn

from todm_sb.experiments.plan.cards import Card
from todm_sb.experiments.plan.count import FFT, FLOAT32, Counted
from todm_sb.experiments.plan.step import Utterance, count_step, subnets_of
from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

B, V, D, BINS = 4, 500, 256, 80
UTTERANCE = Utterance(n_features=800, n_labels=24)
SPACE = SearchSpace(n_layers=6, min_layers=3, ffn_dims=(384, 768, 1024))
OBJECTIVE = Objective(ctc_weight=0.3, kd_weight=0.01, pruning=Pruning())
NETWORK = {
    "vocab_size": V,
    "encoder": {"n_features": BINS, "d_model": D, "dropout": 0.1, **SPACE.sizes},
    "predictor": {"kind": "lstm", "d_model": D},
    "d_joint": D,
    "ctc": True,
    "simple_joiner": True,
}
# Of the matrices that the peaks are measured with, and how much faster the best of so many is.
SIDE, TRIES = 1500, 5


class Step:
    """The step that is planned."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Transducer(**NETWORK)
        self.subnets = subnets_of(self.model, SPACE, 2)
        self.features = torch.randn(B, UTTERANCE.n_features, BINS)
        self.lengths = torch.full((B,), UTTERANCE.n_features)
        self.labels = Labels(
            torch.randint(1, V, (B, UTTERANCE.n_labels)), torch.full((B,), UTTERANCE.n_labels)
        )
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)

    def __call__(self) -> None:
        trunk = Trunk.compute(self.model, self.features, self.lengths, self.labels.ids)
        sandwich_backward(self.model, OBJECTIVE, trunk, self.labels, self.subnets)


def least(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some tries."""
    taken = []
    for _ in range(TRIES):
        begin = time.thread_time()
        work()
        taken.append(time.thread_time() - begin)
    return min(taken)


def this_machine() -> Card:
    """One thread of it."""
    x, y = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)
    flops = 2 * SIDE**3 / least(lambda: torch.mm(x, x, out=y))
    large = torch.zeros(64 << 20)
    bandwidth = 2 * large.nbytes / least(large.clone)
    print(f"this machine: {flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s")
    return Card("one thread", 0, bandwidth, {FLOAT32: flops, FFT: flops}, 1.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    step = Step()
    planned = count_step(NETWORK, OBJECTIVE, step.subnets, UTTERANCE, FLOAT32)
    step()
    with Counted() as counted:
        step()
    card = this_machine()
    taken, _ = time_in_turn(step, lambda: None, args.repeats, 0, time.thread_time)
    shapes = f"d_model {D}, 6 layers, B {B}, 8 s, four subnets"
    seconds = card.seconds(planned.works(B))
    memory = planned.memory(B)
    print_table(
        [
            Row("peak memory, planned", shapes, memory / MB, counted.peak / MB, "MB", 1.1),
            Row("least time, planned", shapes, seconds, taken.median, "s", 1.0),
        ]
    )


if __name__ == "__main__":
    main()
