"""Cutting a subnet out of a supernet."""

from __future__ import annotations

from todm_sb.nnet.elastic import copy_with
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SubnetConfig


def extract_subnet(supernet: Transducer, config: SubnetConfig) -> Transducer:
    """A plain, smaller network with the outputs that the supernet has under this config.

    Args:
        supernet: stays as it is; nothing is shared with the result.
        config: the subnet.

    Returns:
        A network of the same class whose encoder holds only what the config uses.

    Raises:
        IndexError: if the config names a layer that the supernet does not have.
        ValueError: if a choice exceeds the supernet's.
    """
    encoder = supernet.encoder.extract(config)
    subnet = copy_with(supernet, {supernet.encoder: encoder})
    subnet.config["encoder"] = encoder.config
    return subnet
