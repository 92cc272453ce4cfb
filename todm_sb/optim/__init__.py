"""The optimizer and the learning-rate schedule of Zipformer (Yao et al. 2023)."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.optim.eden import Eden
    from todm_sb.optim.scaled_adam import ScaledAdam

__all__ = ["Eden", "ScaledAdam"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.optim.eden": ["Eden"],
        "todm_sb.optim.scaled_adam": ["ScaledAdam"],
    },
)
