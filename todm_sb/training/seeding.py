"""Randomness that follows from where a training is, not from how it got there."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

from todm_sb.training.distributed import rank


def seed_step(seed: int, epoch: int, step: int) -> random.Random:
    """Seeds all generators for a step; SpeechBrain's augmenters draw from the global ones.

    Args:
        seed: of the run.
        epoch: current epoch.
        step: of the epoch.

    Returns:
        A generator that is the same on every rank.
    """
    place = f"{seed}/{epoch}/{step}"
    digest = hashlib.sha256(f"{place}/{rank()}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
    np.random.seed(int.from_bytes(digest[8:12], "little"))  # noqa: NPY002
    random.seed(digest)
    return random.Random(place)
