"""Cutting a subnet out of a supernet."""

from __future__ import annotations

import copy

from torch import nn

from todm_sb.nnet.encoder import MHSSMLayer
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.space import SubnetConfig


def extract_subnet(supernet: Transducer, config: SubnetConfig) -> Transducer:
    """A plain, smaller network with the outputs that the supernet has under this config.

    Args:
        supernet: stays as it is; nothing is shared with the result.
        config: the subnet.

    Returns:
        A network of the same class whose encoder holds only the config's layers and widths.

    Raises:
        IndexError: if the config names a layer that the supernet does not have.
        ValueError: if a width exceeds the supernet's.
    """
    layers = supernet.encoder.layers
    active = nn.ModuleList(
        _extract_layer(layers[i], width)
        for i, width in zip(config.layers, config.ffn_dims, strict=True)
    )
    active.training = layers.training
    # A deep copy takes what its memo already holds as copied: the rest is not paid for.
    subnet = copy.deepcopy(supernet, {id(layers): active})
    subnet.config["encoder"].update(
        ffn_dims=list(config.ffn_dims), dropout_width=layers[0].ffn.dropout_width
    )
    return subnet


def _extract_layer(layer: MHSSMLayer, width: int) -> MHSSMLayer:
    return copy.deepcopy(layer, {id(layer.ffn): layer.ffn.extract(width)})
