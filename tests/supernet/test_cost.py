"""Costs against the network that is really cut out: its tensors, and PyTorch's flop counter."""

import math
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from todm_sb.supernet import SearchSpace, extract_subnet
from todm_sb.supernet.cost import count_bytes, count_macs, count_parameters

SPACE = SearchSpace(4, 1, ffn_dims=(3, 7, 12))
WITH_HEADS = SearchSpace(4, 1, ffn_dims=(3, 7, 12), n_heads=(2, 4, 6))
RNG = random.Random(0)
CONFIGS = [SPACE.max, SPACE.min, *(SPACE.random(RNG) for _ in range(8))]
KINDS = [
    {},
    {"predictor": "stateless"},
    {"causal": True},
    {"n_stack": 2, "d_inner": 20, "state_size": 5},
    {"channels": [2, 3, 4], "time_strides": [1, 2, 3], "n_features": 7},
    {"ctc": True, "ffn_dims": [12, 13, 14, 15]},
    {"d_model": 32, "state_size": 16},
]
ELASTIC_HEADS = {"n_heads": [6] * 4, "d_inner": 18, "n_stack": 2}

of_each_subnet = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.id)
of_each_kind = pytest.mark.parametrize("options", KINDS, ids=str)

aten = torch.ops.aten


def raw(formula):
    """Makes the counter hand over the tensors themselves instead of their shapes."""
    formula._get_raw = True
    return formula


@raw
def fft_flops(x, *args, out_val=None, **kwargs):
    real = x if not x.is_complex() else out_val
    n = real.shape[-1]
    return 2 * (real.numel() // n) * round(1.25 * n * math.log2(n))


@raw
def product_flops(a, b, *args, out_val=None, **kwargs):
    return 2 * 4 * out_val.numel() if out_val.is_complex() else 0


@raw
def lstm_flops(x, w_input, w_hidden, *args, out_val=None, **kwargs):
    steps_times_batch = x.numel() // x.shape[-1]
    return 2 * steps_times_batch * (w_input.numel() + w_hidden.numel())


UNSEEN = {
    aten._fft_r2c: fft_flops,
    aten._fft_c2r: fft_flops,
    aten.mul: product_flops,
    aten.mul_: product_flops,
    aten.mkldnn_rnn_layer: lstm_flops,
}


@torch.no_grad()
def counted_macs(network, n_features, n_labels):
    """What PyTorch counts while the network reads an utterance along one path of its lattice.

    The SSM spectra are made beforehand, as a device would keep them.
    """
    bins = network.config["encoder"]["n_features"]
    features = torch.randn(1, n_features, bins)
    lengths = torch.tensor([n_features])
    shared = network.encoder.shared(int(network.encoder.n_frames(lengths)))
    with FlopCounterMode(display=False, custom_mapping=UNSEEN) as counter:
        frames, n_frames = network.encoder.subsampling(features, lengths)
        encoded = network.encoder.encode(frames, n_frames, None, shared)
        frames = network.joiner.project_encoder(encoded)
        predicted, _ = network.predictor(torch.zeros(1, n_labels + 1, dtype=torch.long))
        labels = network.joiner.project_predictor(predicted)
        path_frames = frames[:, [*range(frames.shape[1]), *[0] * n_labels]]
        network.joiner(path_frames, labels[:, :1])
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@of_each_subnet
def test_macs_are_those_that_pytorch_counts_on_the_extracted_subnet(make_transducer, config):
    supernet = make_transducer()
    for n_features, n_labels in ((1, 0), (50, 4), (203, 0)):
        expected = counted_macs(extract_subnet(supernet, config), n_features, n_labels)
        assert count_macs(supernet, config, n_features, n_labels) == expected


@of_each_kind
def test_macs_are_those_that_pytorch_counts_on_every_kind_of_network(make_transducer, options):
    supernet = make_transducer(**options)
    config = CONFIGS[3]
    expected = counted_macs(extract_subnet(supernet, config), 97, 3)
    assert count_macs(supernet, config, 97, 3) == expected


@pytest.mark.parametrize("causal", [False, True])
def test_macs_bytes_and_parameters_with_fewer_heads(make_transducer, causal):
    supernet = make_transducer(**ELASTIC_HEADS, causal=causal)
    for config in [WITH_HEADS.min, *(WITH_HEADS.random(RNG) for _ in range(5))]:
        subnet = extract_subnet(supernet, config)
        assert count_macs(supernet, config, 97, 3) == counted_macs(subnet, 97, 3)
        assert count_bytes(supernet, config, "int8") == stored_bytes(subnet, int8=True)
        assert count_parameters(supernet, config) == sum(p.numel() for p in subnet.parameters())


def stored_bytes(network, int8):
    """Bytes of each tensor: how many scales there are is said by hand."""
    size = sum(4 * buffer.numel() for buffer in network.buffers())
    for tensor in network.parameters():
        n, row = tensor.numel(), tensor.shape[-1]
        n_scales = len(tensor) if tensor.dim() == 4 else n // row if row >= 32 else 1
        size += n + 4 * n_scales if int8 and n >= 256 and row > 1 else 4 * n
    return size


@of_each_kind
def test_bytes_are_those_of_the_tensors_of_the_deployed_subnet(make_transducer, options):
    supernet = make_transducer(**options)
    for config in CONFIGS:
        deployed = extract_subnet(supernet, config).deployed()
        assert count_bytes(supernet, config) == stored_bytes(deployed, int8=False)
        assert count_bytes(supernet, config, "int8") == stored_bytes(deployed, int8=True)


@of_each_kind
def test_parameters_are_those_of_the_deployed_subnet(make_transducer, options):
    supernet = make_transducer(simple_joiner=True, **options)
    for config in CONFIGS:
        deployed = extract_subnet(supernet, config).deployed()
        assert count_parameters(supernet, config) == sum(p.numel() for p in deployed.parameters())


def test_bytes_of_another_type_are_refused(make_transducer):
    with pytest.raises(ValueError, match="'float32', 'int8'"):
        count_bytes(make_transducer(), SPACE.min, "int4")
