"""Search for the subnets with the fewest errors at each cost."""

from typing import TYPE_CHECKING

from todm_sb.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from todm_sb.search.dev_set import DevSet
    from todm_sb.search.latency import LatencyTable
    from todm_sb.search.pareto import SearchResult
    from todm_sb.search.search import SubnetSearch

__all__ = ["DevSet", "LatencyTable", "SearchResult", "SubnetSearch"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "todm_sb.search.dev_set": ["DevSet"],
        "todm_sb.search.latency": ["LatencyTable"],
        "todm_sb.search.pareto": ["SearchResult"],
        "todm_sb.search.search": ["SubnetSearch"],
    },
)
