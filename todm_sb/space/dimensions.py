"""The elastic dimensions that a layer can have, besides being there or not.

A dimension is a whole number a layer: how large a leading part of something is active. Another one
is declared by adding it to :data:`DIMENSIONS`; whichever encoder obeys it says so in its own
``dimensions``, and the search space of a recipe chooses which of them vary.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """An elastic dimension.

    Args:
        key: its name in subnets, search spaces, YAMLs and bundles.
        label: its name in tables.
        largest: beyond any network; what a slip of the pen asks for must not exhaust the memory.
    """

    key: str
    label: str
    largest: int


FFN = Dimension("ffn_dims", "FFN", 65536)
HEADS = Dimension("n_heads", "heads", 1024)

DIMENSIONS: dict[str, Dimension] = {dimension.key: dimension for dimension in (FFN, HEADS)}
