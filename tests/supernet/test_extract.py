import json
import random

import pytest
import torch

from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import SearchSpace, SubnetConfig, extract_subnet

SPACE = SearchSpace(4, 1, ffn_dims=(3, 7, 12))
RNG = random.Random(0)
WITH_HEADS = SearchSpace(4, 1, ffn_dims=(3, 7, 12), n_heads=(2, 4, 6))
CONFIGS = [SPACE.max, SPACE.min, *(SPACE.random(RNG) for _ in range(6))]
LABELS = torch.tensor([[0, 3, 1, 6], [0, 2, 2, 0]])
LENGTHS = torch.tensor([30, 17])

of_each_subnet = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.id)


def features():
    return torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def outputs(network, config=None):
    """Encoder output and the logits of all lattice nodes."""
    encoded, _ = network.encoder(features(), LENGTHS, config)
    predicted, _ = network.predictor(LABELS)
    joiner = network.joiner
    projected = joiner.project_encoder(encoded).unsqueeze(2)
    return encoded, joiner(projected, joiner.project_predictor(predicted).unsqueeze(1))


@of_each_subnet
def test_an_extracted_subnet_is_the_supernet_under_its_config(make_transducer, config):
    supernet = make_transducer()
    subnet = extract_subnet(supernet, config)
    for got, expected in zip(outputs(subnet), outputs(supernet, config), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"n_stack": 2}, {"d_inner": 16}, {"predictor": "stateless"}]
)
def test_every_kind_of_network_can_be_extracted_from(make_transducer, options):
    supernet = make_transducer(**options)
    config = SubnetConfig((0, 2), ffn_dims=(12, 5))
    subnet = extract_subnet(supernet, config)
    for got, expected in zip(outputs(subnet), outputs(supernet, config), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"dual_mode": True, "n_stack": 2}])
def test_a_subnet_with_fewer_heads_can_be_extracted_and_built_again(make_transducer, options):
    supernet = make_transducer(n_heads=[6] * 4, d_inner=18, **options)
    for config in [WITH_HEADS.min, *(WITH_HEADS.random(RNG) for _ in range(5))]:
        expected = outputs(supernet, config)
        subnet = extract_subnet(supernet, config)
        assert subnet.encoder.dimensions == dict(config.choices)
        again = Transducer(**json.loads(json.dumps(subnet.config))).eval()
        again.load_state_dict(subnet.state_dict())
        for network in (subnet, again, extract_subnet(subnet, subnet_itself(subnet))):
            for got, wanted in zip(outputs(network), expected, strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def subnet_itself(network):
    n = len(network.encoder.layers)
    return SubnetConfig(range(n), **network.encoder.dimensions)


@torch.no_grad()
def test_a_subnet_of_a_dual_mode_network_runs_in_both_modes(make_transducer):
    supernet, config = make_transducer(dual_mode=True), SubnetConfig((0, 2), ffn_dims=(12, 5))
    subnet = extract_subnet(supernet, config)
    for causal in supernet.encoder.modes:
        expected, _ = supernet.encoder(features(), LENGTHS, config, causal)
        got, _ = subnet.encoder(features(), LENGTHS, causal=causal)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    streamed = extract_subnet(supernet.causal_form(), config)
    torch.testing.assert_close(outputs(streamed)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_subnet_of_a_subnet_is_a_subnet(make_transducer):
    supernet = make_transducer()
    larger = extract_subnet(supernet, SubnetConfig((0, 2, 3), ffn_dims=(12, 7, 7)))
    smaller = extract_subnet(larger, SubnetConfig((1, 2), ffn_dims=(3, 7)))
    expected = outputs(supernet, SubnetConfig((2, 3), ffn_dims=(3, 7)))
    for got, exact in zip(outputs(smaller), expected, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)


def test_an_extracted_subnet_stands_alone(make_transducer):
    supernet = make_transducer(ctc=True)
    state = {key: value.clone() for key, value in supernet.state_dict().items()}
    config = supernet.config["encoder"].copy()
    subnet = extract_subnet(supernet, SubnetConfig((1, 3), ffn_dims=(5, 12)))
    before = outputs(subnet)

    assert supernet.config["encoder"] == config
    assert supernet.encoder.dimensions["ffn_dims"] == (12, 12, 12, 12)
    for key, value in supernet.state_dict().items():
        assert torch.equal(value, state[key])

    with torch.no_grad():
        for p in supernet.parameters():
            p.fill_(7)
    for got, expected in zip(outputs(subnet), before, strict=True):
        assert torch.equal(got, expected)
    storages = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    assert not storages & {p.untyped_storage().data_ptr() for p in subnet.parameters()}


@of_each_subnet
def test_the_config_of_an_extracted_subnet_rebuilds_it(make_transducer, config):
    subnet = extract_subnet(make_transducer(), config)
    again = Transducer(**subnet.config).eval()
    again.load_state_dict(subnet.state_dict())
    assert again.encoder.dimensions["ffn_dims"] == config["ffn_dims"]
    for got, expected in zip(outputs(again), outputs(subnet), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("adaptive", [True, False])
def test_an_extracted_subnet_trains_with_the_dropout_it_had(make_transducer, adaptive):
    supernet = make_transducer(dropout=0.4, adaptive_dropout=adaptive).train()
    config = SubnetConfig((0, 3), ffn_dims=(3, 9))
    subnet = extract_subnet(supernet, config)
    assert subnet.training
    torch.manual_seed(1)
    expected = outputs(supernet, config)
    torch.manual_seed(1)
    for got, exact in zip(outputs(subnet), expected, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)
    torch.manual_seed(2)
    assert not torch.allclose(outputs(subnet)[0], expected[0])


def dropout_rates(network):
    return [layer.ffn.dropout_of(layer.ffn.d_hidden) for layer in network.encoder.layers]


@pytest.mark.parametrize("options", [{}, {"dropout_width": 24}, {"adaptive_dropout": False}])
@of_each_subnet
def test_the_config_of_an_extracted_subnet_keeps_its_dropout(make_transducer, options, config):
    supernet = make_transducer(dropout=0.4, **options)
    subnet = extract_subnet(supernet, config)
    again = Transducer(**json.loads(json.dumps(subnet.config)))
    full = options.get("dropout_width", 12)
    expected = [
        0.4 if "adaptive_dropout" in options else 0.4 * width / full for width in config["ffn_dims"]
    ]
    assert dropout_rates(subnet) == pytest.approx(expected)
    assert dropout_rates(again) == dropout_rates(subnet)
    smaller = extract_subnet(again, SubnetConfig((0,), ffn_dims=(3,)))
    expected = [0.4 if "adaptive_dropout" in options else 0.4 * 3 / full]
    assert dropout_rates(Transducer(**smaller.config)) == pytest.approx(expected)


def test_a_rebuilt_subnet_trains_like_the_extracted_one(make_transducer):
    subnet = extract_subnet(
        make_transducer(dropout=0.4).train(), SubnetConfig((0, 3), ffn_dims=(3, 7))
    )
    again = Transducer(**subnet.config).train()
    again.load_state_dict(subnet.state_dict())
    runs = []
    for network in (subnet, again):
        torch.manual_seed(1)
        runs.append(outputs(network))
    for got, expected in zip(*runs, strict=True):
        assert torch.equal(got, expected)


def test_an_extracted_subnet_is_in_evaluation_where_the_supernet_is(make_transducer):
    subnet = extract_subnet(make_transducer().eval(), SubnetConfig((0, 3), ffn_dims=(3, 9)))
    assert [name for name, module in subnet.named_modules() if module.training] == []


def test_an_extracted_subnet_has_the_type_of_the_supernet_and_can_be_trained(make_transducer):
    subnet = extract_subnet(
        make_transducer(dtype=torch.double), SubnetConfig((0, 3), ffn_dims=(3, 9))
    )
    assert all(p.dtype == torch.double for p in subnet.parameters())
    assert all(p.requires_grad and p.is_leaf for p in subnet.parameters())


def test_extraction_after_a_training_step_carries_no_graph(make_transducer):
    supernet = make_transducer()
    encoded, _ = supernet.encoder(features(), LENGTHS)
    encoded.sum().backward()
    subnet = extract_subnet(supernet, SPACE.min)
    assert all(p.grad_fn is None for p in subnet.parameters())


def test_layers_and_widths_that_the_supernet_lacks_are_refused(make_transducer):
    supernet = make_transducer()
    with pytest.raises(IndexError):
        extract_subnet(supernet, SubnetConfig((0, 4), ffn_dims=(12, 12)))
    with pytest.raises(ValueError, match=r"13 is outside 1\.\.12"):
        extract_subnet(supernet, SubnetConfig((0,), ffn_dims=(13,)))
