"""All that a subnet costs, counted or measured."""

from __future__ import annotations

from dataclasses import dataclass

from todm_sb.nnet.transducer import Transducer
from todm_sb.search.latency import LatencyTable
from todm_sb.space import SubnetConfig
from todm_sb.supernet.cost import count_bytes, count_macs, count_parameters


@dataclass(frozen=True)
class Costs:
    """All costs of a subnet.

    Args:
        supernet: holds the shapes.
        n_features: feature frames of the audio that MACs are counted for.
        latency: of audio of that length, where it was measured.
    """

    supernet: Transducer
    n_features: int
    latency: LatencyTable | None = None

    def __call__(self, config: SubnetConfig) -> dict[str, float]:
        """``params`` and ``macs`` (numbers), ``bytes`` and ``bytes_int8`` of the weights, and
        ``latency`` (seconds) where it was measured."""
        costs: dict[str, float] = {
            "params": count_parameters(self.supernet, config),
            "macs": count_macs(self.supernet, config, self.n_features),
            "bytes": count_bytes(self.supernet, config),
            "bytes_int8": count_bytes(self.supernet, config, "int8"),
        }
        if self.latency is not None:
            costs["latency"] = self.latency(config)
        return costs
