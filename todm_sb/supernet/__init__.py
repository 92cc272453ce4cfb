"""The supernet: its space of subnets, their joint training, extraction and cost."""

from todm_sb.supernet.cost import count_parameters
from todm_sb.supernet.extract import extract_subnet
from todm_sb.supernet.space import SearchSpace, SubnetConfig

__all__ = ["SearchSpace", "SubnetConfig", "count_parameters", "extract_subnet"]
