"""What a subnet costs, known without building it."""

from __future__ import annotations

from torch import nn

from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.space import SubnetConfig


def count_parameters(supernet: Transducer, config: SubnetConfig) -> int:
    """Exact number of parameters of the deployed subnet (without the CTC head of training).

    Args:
        supernet: holds the shapes.
        config: the subnet.
    """
    layers = supernet.encoder.layers
    shared = _count(supernet) - _count(layers) - _count(supernet.ctc_output)
    return shared + sum(
        _count(layers[i]) - _count(layers[i].ffn) + layers[i].ffn.n_parameters(width)
        for i, width in zip(config.layers, config.ffn_dims, strict=True)
    )


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0
