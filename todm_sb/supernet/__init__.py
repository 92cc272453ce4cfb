"""The supernet: its space of subnets, their joint training, extraction and cost."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.space import SearchSpace, SubnetConfig
    from todm_sb.supernet.cost import count_bytes, count_macs, count_parameters
    from todm_sb.supernet.extract import extract_subnet
    from todm_sb.supernet.objective import Objective, Term

__all__ = [
    "Objective",
    "SearchSpace",
    "SubnetConfig",
    "Term",
    "count_bytes",
    "count_macs",
    "count_parameters",
    "extract_subnet",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.space": ["SearchSpace", "SubnetConfig"],
        "todm_sb.supernet.cost": ["count_bytes", "count_macs", "count_parameters"],
        "todm_sb.supernet.objective": ["Objective", "Term"],
        "todm_sb.supernet.extract": ["extract_subnet"],
    },
)
