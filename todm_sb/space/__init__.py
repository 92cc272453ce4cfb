"""Subnets and the space that they are drawn from: the one owner of elastic dimensions."""

from todm_sb.space.dimensions import DIMENSIONS, Dimension
from todm_sb.space.search_space import SearchSpace
from todm_sb.space.subnet import SUBNET_NAME, SubnetConfig

__all__ = ["DIMENSIONS", "SUBNET_NAME", "Dimension", "SearchSpace", "SubnetConfig"]
