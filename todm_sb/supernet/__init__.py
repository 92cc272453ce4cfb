"""The supernet: its space of subnets, their joint training, extraction and cost."""

from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.cost import count_parameters
from todm_sb.supernet.extract import extract_subnet

__all__ = ["SearchSpace", "SubnetConfig", "count_parameters", "extract_subnet"]
