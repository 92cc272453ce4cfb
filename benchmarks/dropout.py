"""Dropout, peer PyTorch's: forward and backward at a feed-forward layer of mini_librispeech.yaml.

python benchmarks/dropout.py [--repeats N] [--processor-time]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import Row, parse_repeats, print_table, time_in_turn
from torch import Tensor

from todm_sb.nnet.dropout import dropout

SHAPE, P = (3, 234, 768), 0.1
TARGET = 0.6


def main() -> None:
    """Print the table."""
    repeats, clock = parse_repeats(__doc__.splitlines()[0], 50)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(SHAPE).to(dtype).requires_grad_()

        def work(drop: Callable[[Tensor, float, bool], Tensor], x: Tensor = x) -> None:
            drop(x, P, True).backward(x.detach())

        ours, peer = time_in_turn(
            lambda work=work: work(dropout), lambda work=work: work(F.dropout), repeats, clock=clock
        )
        shapes = f"{' x '.join(map(str, SHAPE))}, {str(dtype).removeprefix('torch.')}"
        times = 1e3 * ours.median, 1e3 * peer.median
        rows.append(Row("dropout, peer PyTorch's", shapes, *times, "ms", TARGET))
    print_table(rows)


if __name__ == "__main__":
    main()
