"""Time of one optimizer step: ScaledAdam against torch.optim.AdamW(foreach=True).

    python benchmarks/scaled_adam.py [--threads 2] [--steps 30]

31.7 M float32 parameters in 132 tensors: ten blocks of width 512 with an FFN of 2048, convolutional
subsampling, predictor and joiner. The two step in turn in one process, so that whatever else the
machine does falls on both; the medians count every kind of step ScaledAdam has (with and without a
change of sizes).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.optim import Optimizer

from todm_sb.optim import ScaledAdam

D, FFN, VOCAB, BLOCKS = 512, 2048, 900, 10
NORM = [(D,), (D,)]
BLOCK = [*NORM, (2 * D, D), (2 * D,), (D, D), (D,), *NORM, (FFN, D), (FFN,), (D, FFN), (D,)]
SUBSAMPLING = [(128, 1, 3, 3), (128,), (128, 128, 3, 3), (128,), (D, 128 * 19), (D,)]
PREDICTOR_JOINER = [(VOCAB, D), (D, D), (1,), (D, D), (VOCAB, D), (VOCAB,)]


def make_params() -> list[torch.nn.Parameter]:
    """Parameters with gradients, all filled with noise of a usual size."""
    params = []
    for shape in BLOCKS * BLOCK + SUBSAMPLING + PREDICTOR_JOINER:
        p = torch.nn.Parameter(0.05 * torch.randn(shape))
        p.grad = 1e-3 * torch.randn(shape)
        params.append(p)
    return params


def step_ms(optimizer: Optimizer) -> float:
    """Milliseconds of one step."""
    start = time.perf_counter()
    optimizer.step()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    params = make_params()
    ours = ScaledAdam(params)
    peer = torch.optim.AdamW(make_params(), foreach=True)
    for _ in range(4):  # states are made, caches and allocator settle
        ours.step()
        peer.step()
    times = [(step_ms(ours), step_ms(peer)) for _ in range(args.steps)]
    ours_ms, peer_ms = (statistics.median(column) for column in zip(*times, strict=True))

    print(
        f"{sum(p.numel() for p in params) / 1e6:.1f} M parameters, {len(params)} tensors, "
        f"{args.threads} thread(s), median of {args.steps} steps, torch {torch.__version__}\n"
    )
    print("| ScaledAdam ms | AdamW(foreach=True) ms | ratio |")
    print("| ---: | ---: | ---: |")
    print(f"| {ours_ms:.1f} | {peer_ms:.1f} | {ours_ms / peer_ms:.2f} |")


if __name__ == "__main__":
    main()
