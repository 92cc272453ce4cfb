"""Consistency of a CTC head between two augmented views of the same utterance (CR-CTC)."""

from __future__ import annotations

import torch
from torch import Tensor

from todm_sb.utils.errors import ConfigError


def ctc_consistency(log_probs: Tensor, n_frames: Tensor) -> Tensor:
    """How far the CTC distributions of two views are from each other: each is drawn to the other,
    which is held fixed (arXiv:2410.05101, equation 4: half the sum over frames of both
    Kullback-Leibler divergences).

    Args:
        log_probs: (2 x utterances, T, V), the two views of an utterance one after the other.
        n_frames: (2 x utterances,), frames of each; those of two views are as many.

    Returns:
        (utterances,), in nats.

    Raises:
        ConfigError: if the views do not come in pairs.
    """
    if len(log_probs) % 2:
        raise ConfigError(f"{len(log_probs)} views of utterances: they must come in pairs")
    one, other = log_probs[::2], log_probs[1::2]
    p, q = one.detach(), other.detach()
    # As much as KL(q || one) + KL(p || other), each with its target fixed.
    apart = (q.exp() * (q - one) + p.exp() * (p - other)).sum(-1)
    frames = torch.arange(apart.shape[1], device=apart.device)
    return 0.5 * apart.masked_fill(frames >= n_frames[::2, None], 0.0).sum(1)
