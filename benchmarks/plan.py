"""``todm-sb plan`` against steps that are taken: their memory, and their time on this machine.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--repeats 3] [--batches 1 2 4]

Sandwich steps of a small supernet on one thread, in float32. The machine's peaks are measured in
turn with the steps, medians all, by the thread's processor time: a product of square matrices, and
a copy between two tensors that are far larger than the caches and were written before, so that no
page is new. Peer is the step.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from measure import MB, Row, print_table

from todm_sb.experiments.plan.cards import Card
from todm_sb.experiments.plan.count import FFT, FLOAT32, Counted, Work
from todm_sb.experiments.plan.step import Utterance, count_step, subnets_of
from todm_sb.losses.pruning import Pruning
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace, SubnetConfig
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk

V, D, BINS = 500, 256, 80
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
# What the peaks are measured with: the side of the matrices, and the elements that are copied.
SIDE, ELEMENTS = 1500, 32 << 20


class Step:
    """The step that is planned.

    Args:
        model: the supernet, with gradients.
        subnets: of the step.
        batch: utterances.
    """

    def __init__(self, model: Transducer, subnets: list[SubnetConfig], batch: int) -> None:
        self.model, self.subnets = model, subnets
        self.features = torch.randn(batch, UTTERANCE.n_features, BINS)
        self.lengths = torch.full((batch,), UTTERANCE.n_features)
        n_labels = torch.full((batch,), UTTERANCE.n_labels)
        self.labels = Labels(torch.randint(1, V, (batch, UTTERANCE.n_labels)), n_labels)

    def __call__(self) -> None:
        trunk = Trunk.compute(self.model, self.features, self.lengths, self.labels.ids)
        sandwich_backward(self.model, OBJECTIVE, trunk, self.labels, self.subnets)


class Product:
    """Of two matrices."""

    flops = 2 * SIDE**3

    def __init__(self) -> None:
        self.x, self.result = torch.randn(SIDE, SIDE), torch.empty(SIDE, SIDE)

    def __call__(self) -> None:
        torch.mm(self.x, self.x, out=self.result)


class Copy:
    """From memory to memory."""

    n_bytes = 2 * 4 * ELEMENTS

    def __init__(self) -> None:
        self.source, self.target = torch.ones(ELEMENTS), torch.ones(ELEMENTS)

    def __call__(self) -> None:
        self.target.copy_(self.source)


def seconds(works: list[Product | Copy | Step], repeats: int) -> list[float]:
    """Of each, the median; one after the other, again and again, after once to warm up."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(1 + repeats):
        for work, times in zip(works, taken, strict=True):
            begin = time.thread_time()
            work()
            times.append(time.thread_time() - begin)
    return [median(times[1:]) for times in taken]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Transducer(**NETWORK)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    subnets = subnets_of(model, SPACE, 2)
    planned = count_step(NETWORK, OBJECTIVE, subnets, UTTERANCE, FLOAT32, "cpu")
    steps = [Step(model, subnets, batch) for batch in args.batches]
    product, copy, *taken = seconds([Product(), Copy(), *steps], args.repeats)
    flops, bandwidth = Product.flops / product, Copy.n_bytes / copy
    print(f"this machine: {flops / 1e9:.1f} GFLOP/s, {bandwidth / 1e9:.2f} GB/s")
    card = Card("one thread", 0, bandwidth, {FLOAT32: flops, FFT: flops}, 1.0)
    rows = []
    for batch, step, measured in zip(args.batches, steps, taken, strict=True):
        shapes, works = f"d_model {D}, 6 layers, B {batch}, 8 s", planned.works(batch)
        with Counted() as counted:
            step()
        memory, total = planned.memory(batch) / MB, sum(works.values(), Work())
        computing = sum(card.computing(kind, work) for kind, work in works.items())
        rows += [
            Row("peak memory, planned", shapes, memory, counted.peak / MB, "MB", 1.1),
            Row("time of a step, planned", shapes, card.seconds(works), measured, "s", 1.0),
            Row("of that computing alone", shapes, computing, measured, "s", 1.0),
            Row("of that moving alone", shapes, card.moving(total), measured, "s", 1.0),
        ]
    print_table(rows)


if __name__ == "__main__":
    main()
