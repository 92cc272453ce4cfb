"""Latency of 20 random subnets: summed from the table, against the cut-out network's own time.

    python benchmarks/latency.py [--subnets 20] [--seconds 10] [--rounds 10] [--networks NAME ...]

The mini recipe's network and one of d_model 256, untrained, elastic in FFN width, and in SSM heads
too. One thread; the table and the subnets are measured in turn, and both are medians over the
rounds: other work on the cores slows both alike, where the least of few times is a matter of luck.
"""

from __future__ import annotations

import argparse
import random
from statistics import fmean, median

import torch

from todm_sb.nnet.transducer import Transducer
from todm_sb.search.latency import LatencyTable, time_utterance
from todm_sb.supernet import SearchSpace, extract_subnet

FEATURES_A_SECOND, BINS = 100, 80
HEADS = (2, 4, 8)
SMALL, LARGE = (128, 256, 384), (256, 512, 768, 1024)
NETWORKS = {
    "d_model 144, 6 layers": (144, SearchSpace(6, 3, ffn_dims=SMALL)),
    "d_model 144, heads elastic": (144, SearchSpace(6, 3, ffn_dims=SMALL, n_heads=HEADS)),
    "d_model 256, 10 layers": (256, SearchSpace(10, 4, ffn_dims=LARGE)),
    "d_model 256, heads elastic": (256, SearchSpace(10, 4, ffn_dims=LARGE, n_heads=HEADS)),
}


def make_supernet(d_model: int, space: SearchSpace) -> Transducer:
    """A network of the mini recipe's shape."""
    return Transducer(
        vocab_size=128,
        d_joint=160,
        encoder={
            "n_features": BINS,
            "d_model": d_model,
            "n_heads": 8,
            **space.sizes,
            "state_size": 8,
            "channels": [16, 32],
            "time_strides": [2, 3],
        },
        predictor={"kind": "lstm", "d_model": 128},
    ).eval()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--subnets", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    features = torch.randn(1, int(args.seconds * FEATURES_A_SECOND), BINS)
    rng = random.Random(0)

    print("| network | subnets | their times, ms | mean error % | its mean size | largest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in args.networks:
        d_model, space = NETWORKS[name]
        supernet = make_supernet(d_model, space)
        configs = [space.random(rng) for _ in range(args.subnets)]
        networks = [extract_subnet(supernet, config) for config in configs]
        tables, times = [], []
        for _ in range(args.rounds):
            tables.append(LatencyTable.measure(supernet, space, features, repeats=1))
            times.append(time_utterance(networks, features, repeats=1))
        predicted = [median(table(config) for table in tables) for config in configs]
        times = list(map(median, zip(*times, strict=True)))
        errors = [p / t - 1 for p, t in zip(predicted, times, strict=True)]
        print(
            f"| {name} | {len(configs)} | {1e3 * min(times):.1f} to {1e3 * max(times):.1f} "
            f"| {100 * fmean(errors):+.1f} | {100 * fmean(map(abs, errors)):.1f} "
            f"| {100 * max(errors, key=abs):+.1f} |",
            flush=True,
        )
    print(f"\n{args.seconds:g} s of audio, one thread, torch {torch.__version__}")


if __name__ == "__main__":
    main()
