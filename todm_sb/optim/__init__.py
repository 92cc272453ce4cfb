"""The optimizer and the learning-rate schedule of Zipformer (Yao et al. 2023)."""

from todm_sb.optim.eden import Eden
from todm_sb.optim.scaled_adam import ScaledAdam

__all__ = ["Eden", "ScaledAdam"]
