"""What a subnet costs, known without building it: parameters, bytes and multiply-accumulates.

Time is not computed but measured: see :mod:`todm_sb.supernet.latency`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from todm_sb.nnet.elastic import ElasticFFN
from todm_sb.nnet.encoder import MHSSMLayer
from todm_sb.nnet.fft_convolution import fft_size
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
from todm_sb.nnet.ssm import MultiHeadSSM
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.nnet.transducer import AUXILIARIES, Transducer
from todm_sb.supernet.latency import LatencyTable
from todm_sb.supernet.space import SubnetConfig

FLOAT32_BYTES = 4

# Layers whose matrices an int8 network holds as bytes.
QUANTISED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.Embedding)


def count_parameters(supernet: Transducer, config: SubnetConfig) -> int:
    """Exact number of parameters of the deployed subnet (without the auxiliaries of training).

    Args:
        supernet: holds the shapes.
        config: the subnet.
    """
    shared = sum(map(_count, _shared_parts(supernet)))
    return shared + sum(
        _count(layer) - _count(layer.ffn) + layer.ffn.n_parameters(width)
        for layer, width in _active(supernet, config)
    )


def count_bytes(supernet: Transducer, config: SubnetConfig, dtype: str = "float32") -> int:
    """Exact size of the deployed subnet's weights, parameters and buffers.

    Args:
        supernet: holds the shapes.
        config: the subnet.
        dtype: ``float32``, or ``int8``: the matrices of linear, convolution, LSTM and embedding
            layers take a byte an element and a float32 scale an output row; biases, norms and the
            SSMs' own parameters, which are few and delicate, stay float32.

    Raises:
        ValueError: on another dtype.
    """
    if dtype not in ("float32", "int8"):
        raise ValueError(f"dtype must be float32 or int8, not {dtype!r}")
    int8 = dtype == "int8"
    shared = sum(_bytes(part, int8) for part in _shared_parts(supernet))
    return shared + sum(
        _bytes(layer, int8) - _bytes(layer.ffn, int8) + _ffn_bytes(layer.ffn, width, int8)
        for layer, width in _active(supernet, config)
    )


def count_macs(
    supernet: Transducer, config: SubnetConfig, n_features: int, n_labels: int = 0
) -> int:
    """Exact number of multiply-accumulates to read one utterance.

    Counted are matrix products, convolutions (their padding included), the LSTM and the FFT
    convolutions: 1.25 n log2 n for a real FFT of n points (half of a complex one's 5 n log2 n
    operations, two to a multiply-accumulate) and 4 for a complex product. Not counted are
    elementwise operations (norms, activations, biases, gates), and the SSM kernels with their
    spectra, which depend on the weights alone and can be kept. The path through the lattice has a
    node a frame and one a label: a search that looks at more nodes does more.

    Args:
        supernet: holds the shapes.
        config: the subnet.
        n_features: feature frames.
        n_labels: labels that are read.
    """
    encoder, joiner = supernet.encoder, supernet.joiner
    n_frames = encoder.subsampling.output_lengths(n_features)
    layers = sum(
        _ssm_macs(layer.ssm, n_frames) + 2 * n_frames * layer.ffn.w_1.in_features * width
        for layer, width in _active(supernet, config)
    )
    path = (
        n_frames * joiner.project_encoder.weight.numel()
        + (n_labels + 1) * joiner.project_predictor.weight.numel()
        + (n_labels + n_frames) * joiner.output.weight.numel()
    )
    return (
        _subsampling_macs(encoder.subsampling, n_features, supernet.config["encoder"]["n_features"])
        + layers
        + (n_labels + 1) * _predictor_macs(supernet.predictor)
        + path
    )


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
        costs = {
            "params": count_parameters(self.supernet, config),
            "macs": count_macs(self.supernet, config, self.n_features),
            "bytes": count_bytes(self.supernet, config),
            "bytes_int8": count_bytes(self.supernet, config, "int8"),
        }
        if self.latency is not None:
            costs["latency"] = self.latency(config)
        return costs


def fft_macs(n: int) -> int:
    """Multiply-accumulates of a real FFT of ``n`` points, by the usual convention."""
    return round(1.25 * n * math.log2(n))


def _active(supernet: Transducer, config: SubnetConfig) -> list[tuple[MHSSMLayer, int]]:
    """The subnet's layers, at full width, and the width of each."""
    layers = supernet.encoder.layers
    return [(layers[i], width) for i, width in zip(config.layers, config.ffn_dims, strict=True)]


def _shared_parts(supernet: Transducer) -> list[nn.Module]:
    """What all deployed subnets have in common."""
    parts = [part for name, part in supernet.named_children() if name not in AUXILIARIES]
    parts.remove(supernet.encoder)
    encoder_parts = list(supernet.encoder.children())
    encoder_parts.remove(supernet.encoder.layers)
    return parts + encoder_parts


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _bytes(module: nn.Module, int8: bool) -> int:
    size = FLOAT32_BYTES * sum(b.numel() for b in module.buffers())
    for part in module.modules():
        quantised = int8 and isinstance(part, QUANTISED)
        for parameter in part.parameters(recurse=False):
            size += _tensor_bytes(parameter, quantised and parameter.dim() > 1)
    return size


def _tensor_bytes(tensor: Tensor, int8: bool) -> int:
    if int8:
        return tensor.numel() + FLOAT32_BYTES * len(tensor)
    return FLOAT32_BYTES * tensor.numel()


def _ffn_bytes(ffn: ElasticFFN, width: int, int8: bool) -> int:
    d_model = ffn.w_1.in_features
    if int8:
        # Two matrices; a scale and a bias for each row of either.
        return 2 * d_model * width + 2 * FLOAT32_BYTES * (width + d_model)
    return FLOAT32_BYTES * ffn.n_parameters(width)


def _subsampling_macs(subsampling: ConvSubsampling, n_features: int, bins: int) -> int:
    macs = 0
    for conv, stride in zip(subsampling.convs, subsampling.time_strides, strict=True):
        n_features, bins = -(-n_features // stride), -(-bins // 2)
        macs += n_features * bins * conv.weight.numel()
    return macs + n_features * subsampling.projection.weight.numel()


def _ssm_macs(ssm: MultiHeadSSM, n_frames: int) -> int:
    n = fft_size(n_frames)
    # To frequencies and back, and one product a frequency between.
    convolution = ssm.w_in.out_features * (2 * fft_macs(n) + 4 * (n // 2 + 1))
    projections = n_frames * (ssm.w_in.weight.numel() + ssm.w_out.weight.numel())
    return projections + len(ssm.forward_ssms) * convolution


def _predictor_macs(predictor: LSTMPredictor | StatelessPredictor) -> int:
    """Of one label."""
    if isinstance(predictor, StatelessPredictor):
        return predictor.conv.weight.numel()
    return sum(w.numel() for name, w in predictor.lstm.named_parameters() if "weight" in name)
