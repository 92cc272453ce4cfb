"""Time of one optimizer step: ScaledAdam against torch.optim.AdamW(foreach=True).

    python benchmarks/scaled_adam.py [--steps 30]

31.7 M float32 parameters in 132 tensors: ten blocks of width 512 with an FFN of 2048, convolutional
subsampling, predictor and joiner. The medians count every kind of step ScaledAdam has (with and
without a change of sizes).
"""

from __future__ import annotations

import argparse

import torch
from measure import Row, print_table, time_in_turn

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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(0)

    params = make_params()
    ours, peer = time_in_turn(
        ScaledAdam(params).step,
        torch.optim.AdamW(make_params(), foreach=True).step,
        repeats=args.steps,
        warmup=4,  # states are made, caches and allocator settle
    )
    shapes = f"{sum(p.numel() for p in params) / 1e6:.1f} M parameters, {len(params)} tensors"
    claim = "ScaledAdam step, peer AdamW(foreach=True)"
    print_table([Row(claim, shapes, 1e3 * ours.median, 1e3 * peer.median, "ms", target=1.5)])


if __name__ == "__main__":
    main()
