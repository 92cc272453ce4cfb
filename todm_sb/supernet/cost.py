"""What a subnet costs, known without building it."""

from __future__ import annotations

from torch import nn

from todm_sb.nnet.transducer import AUXILIARIES, Transducer
from todm_sb.supernet.space import SubnetConfig


def count_parameters(supernet: Transducer, config: SubnetConfig) -> int:
    """Exact number of parameters of the deployed subnet (without the auxiliaries of training).

    Args:
        supernet: holds the shapes.
        config: the subnet.
    """
    layers = supernet.encoder.layers
    auxiliaries = sum(_count(getattr(supernet, name)) for name in AUXILIARIES)
    shared = _count(supernet) - _count(layers) - auxiliaries
    return shared + sum(
        _count(layers[i]) - _count(layers[i].ffn) + layers[i].ffn.n_parameters(width)
        for i, width in zip(config.layers, config.ffn_dims, strict=True)
    )


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
