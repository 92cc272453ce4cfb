"""Losses: the transducer lattice and alpha-divergence distillation on it."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.losses.distillation import AlphaDivergence
    from todm_sb.losses.divergence import Divergence
    from todm_sb.losses.pruning import Pruning
    from todm_sb.losses.transducer import lattice_loss

__all__ = ["AlphaDivergence", "Divergence", "Pruning", "lattice_loss"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.losses.distillation": ["AlphaDivergence"],
        "todm_sb.losses.divergence": ["Divergence"],
        "todm_sb.losses.pruning": ["Pruning"],
        "todm_sb.losses.transducer": ["lattice_loss"],
    },
)
