"""How the heads of an MH-SSM are ordered, and how they gate each other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def spread_pairs(n_heads: int) -> list[int]:
    """Parts of the range of time scales for value heads, then for their gates.

    Pair by pair, each takes the slower and the faster of the two parts that lie farthest from
    those taken before: the first pair has the slowest and the fastest part, and the parts of any
    leading pairs are spread over the whole range.

    Args:
        n_heads: even number of heads, and of parts.
    """
    taken = [0, n_heads - 1]
    while len(taken) < n_heads:
        free = [part for part in range(n_heads) if part not in taken]
        taken.append(max(free, key=lambda part: min(abs(part - other) for other in taken)))
    pairs = [sorted(taken[i : i + 2]) for i in range(0, n_heads, 2)]
    return [slow for slow, _ in pairs] + [fast for _, fast in pairs]


def gate_heads(y: Tensor) -> Tensor:
    """Inter-head gating: (..., H heads side by side) -> (..., H / 2 heads)."""
    values, gates = y.chunk(2, dim=-1)
    return values * F.gelu(gates)
