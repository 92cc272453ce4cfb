"""``todm-sb train``: trains a recipe's supernet and measures its subnets, as ``train.py`` does.

todm-sb train hparams/mini.yaml
todm-sb train LibriSpeech/todm/hparams/mini.yaml                # of those that are installed
torchrun --nproc_per_node=8 --module todm_sb.cli train hparams/supernet.yaml --data_folder=...

The recipe is a file, or else one of those that come with the package, by its name there. Results
are written below the folder that the command is called in.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import todm_sb
from todm_sb.cli.main import OK, imports
from todm_sb.training import train

_PACKAGE = Path(todm_sb.__file__).parent
# In what is installed, they are in the package; in a checkout, beside it.
RECIPES = next(
    (f for f in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if f.is_dir()), _PACKAGE
)


def main(argv: Sequence[str]) -> int:
    """Trains and tests.

    Args:
        argv: as of :func:`todm_sb.training.train.main`.

    Returns:
        The exit code.
    """
    train.main([with_installed(argument) for argument in argv], ("todm-sb", *imports, "train"))
    return OK


def with_installed(argument: str) -> str:
    """The path of an installed recipe, if an argument is the name of one and no file here."""
    installed = RECIPES / argument
    is_name = argument.endswith(".yaml") and not Path(argument).exists()
    return str(installed) if is_name and installed.is_file() else argument
