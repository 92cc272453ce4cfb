"""What a subnet costs, known without building it: parameters, bytes and multiply-accumulates.

Time is not computed but measured: see :mod:`todm_sb.search.latency`.
"""

from __future__ import annotations

from todm_sb.nnet.sizes import n_bytes, n_parameters
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SubnetConfig


def count_parameters(supernet: Transducer, config: SubnetConfig | None = None) -> int:
    """Exact number of parameters of the deployed subnet (without the auxiliaries of training).

    Args:
        supernet: holds the shapes.
        config: the subnet; None for the max subnet.
    """
    shared = sum(map(n_parameters, supernet.shared_parts()))
    return shared + supernet.encoder.n_parameters(config)


def count_bytes(
    supernet: Transducer, config: SubnetConfig | None = None, dtype: str = "float32"
) -> int:
    """Exact size of the deployed subnet's weights, parameters and buffers.

    Args:
        supernet: holds the shapes.
        config: the subnet; None for the max subnet.
        dtype: ``float32`` or ``int8``, see :func:`todm_sb.nnet.sizes.n_bytes`.

    Raises:
        ValueError: on another dtype.
    """
    shared = sum(n_bytes(part, dtype) for part in supernet.shared_parts())
    return shared + supernet.encoder.n_bytes(config, dtype)


def count_macs(
    supernet: Transducer, config: SubnetConfig | None, n_features: int, n_labels: int = 0
) -> int:
    """Exact number of multiply-accumulates to decode one utterance.

    Counted are matrix products, convolutions (their padding included), the LSTM and the FFT
    convolutions: 1.25 n log2 n for a real FFT of n points and 4 for a complex product. Not counted
    are elementwise operations (norms, activations, biases, gates), and what depends on the weights
    alone and can be kept. The path through the lattice has a node a frame and one a label: a search
    that looks at more nodes does more.

    Args:
        supernet: holds the shapes.
        config: the subnet; None for the max subnet.
        n_features: feature frames.
        n_labels: labels that are decoded.
    """
    encoder, joiner = supernet.encoder, supernet.joiner
    n_frames = encoder.n_frames(n_features)
    path = (
        n_frames * joiner.project_encoder.weight.numel()
        + (n_labels + 1) * joiner.project_predictor.weight.numel()
        + (n_labels + n_frames) * joiner.output.weight.numel()
    )
    predictor = (n_labels + 1) * supernet.predictor.macs_of_a_label()
    return encoder.macs(n_features, config) + predictor + path
