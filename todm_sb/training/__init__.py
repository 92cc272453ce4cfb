"""Training: what a command line asks for, the run, its folder, and what it leaves there."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.training.brain import TODMBrain
    from todm_sb.training.checkpoints import SafeCheckpointer
    from todm_sb.training.recipe import Recipe
    from todm_sb.training.runs import load_run

__all__ = ["Recipe", "SafeCheckpointer", "TODMBrain", "load_run"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.training.brain": ["TODMBrain"],
        "todm_sb.training.checkpoints": ["SafeCheckpointer"],
        "todm_sb.training.recipe": ["Recipe"],
        "todm_sb.training.runs": ["load_run"],
    },
)
