"""``todm-sb train``: trains a recipe's supernet and measures its subnets, as ``train.py`` does.

todm-sb train hparams/mini.yaml
torchrun --nproc_per_node=8 --module todm_sb.cli train hparams/supernet.yaml --data_folder=...
"""

from __future__ import annotations

from collections.abc import Sequence

from todm_sb.cli.main import OK
from todm_sb.training import train


def main(argv: Sequence[str]) -> int:
    """Trains and tests.

    Args:
        argv: as of :func:`todm_sb.training.train.main`.

    Returns:
        The exit code.
    """
    train.main(argv, ("todm-sb", "train"))
    return OK
