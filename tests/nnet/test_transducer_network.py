import copy
import json
import math

import pytest
import torch

from todm_sb.nnet.joiner import Joiner
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError


def config(**changes):
    return {
        "vocab_size": 7,
        "encoder": {"n_features": 6, "d_model": 8, "ffn_dims": [12, 12], "n_heads": 4},
        "predictor": {"kind": "lstm", "d_model": 6},
        "d_joint": 10,
        **changes,
    }


@torch.no_grad()
def test_the_joiner_is_a_linear_layer_on_the_tanh_of_the_sum():
    joiner = Joiner(4, 3, 5, 6).double()
    encoder, predictor = torch.randn(4, dtype=torch.double), torch.randn(3, dtype=torch.double)
    joint = torch.tanh(
        joiner.project_encoder.weight @ encoder
        + joiner.project_encoder.bias
        + joiner.project_predictor.weight @ predictor
    )
    expected = joiner.output.weight @ joint + joiner.output.bias
    logits = joiner(joiner.project_encoder(encoder), joiner.project_predictor(predictor))
    torch.testing.assert_close(logits, expected)
    assert joiner.vocab_size == 6


@torch.no_grad()
def test_the_joiner_takes_every_frame_to_every_label():
    joiner = Joiner(4, 3, 5, 6)
    encoder, predictor = torch.randn(2, 7, 5), torch.randn(2, 3, 5)
    logits = joiner(encoder.unsqueeze(2), predictor.unsqueeze(1))
    assert logits.shape == (2, 7, 3, 6)
    torch.testing.assert_close(logits[1, 4, 2], joiner(encoder[1, 4], predictor[1, 2]))


@pytest.mark.parametrize("kind", ["lstm", "stateless"])
@pytest.mark.parametrize("ctc", [False, True])
def test_a_network_is_rebuilt_from_its_config_also_through_json(kind, ctc):
    network = Transducer(**config(predictor={"kind": kind, "d_model": 6}, ctc=ctc))
    again = Transducer(**json.loads(json.dumps(network.config)))
    again.load_state_dict(network.state_dict())
    assert again.config == network.config
    assert isinstance(
        again.predictor, {"lstm": LSTMPredictor, "stateless": StatelessPredictor}[kind]
    )
    assert (again.ctc_output is not None) == ctc


def test_building_leaves_the_callers_config_alone():
    given = config()
    before = copy.deepcopy(given)
    network = Transducer(**given)
    network.config["encoder"]["d_model"] = 99
    network.config["predictor"]["d_model"] = 99
    assert given == before


def test_the_parts_are_sized_to_each_other():
    network = Transducer(**config(ctc=True))
    encoded, n_frames = network.encoder(torch.randn(2, 9, 6), torch.tensor([9, 9]))
    outputs, _ = network.predictor(torch.tensor([[0, 6], [0, 1]]))
    joiner = network.joiner
    logits = joiner(
        joiner.project_encoder(encoded).unsqueeze(2), joiner.project_predictor(outputs).unsqueeze(1)
    )
    assert logits.shape == (2, 3, 2, 7)
    assert n_frames.tolist() == [3, 3]
    assert network.ctc_output(encoded).shape == (2, 3, 7)


@pytest.mark.parametrize("vocab_size", [2, 7, 1000])
@torch.no_grad()
def test_an_untrained_network_expects_nine_blanks_in_ten_and_all_labels_alike(vocab_size):
    network = Transducer(**config(vocab_size=vocab_size, ctc=True))
    for logits in (
        network.joiner(torch.zeros(3, 10), torch.zeros(3, 10)),
        network.ctc_output(torch.zeros(3, 8)),
    ):
        probs = logits.double().softmax(-1)
        for frame in probs:
            assert frame[Transducer.blank].item() == pytest.approx(0.9, rel=1e-5)
            labels = [p for i, p in enumerate(frame.tolist()) if i != Transducer.blank]
            assert labels == pytest.approx([0.1 / (vocab_size - 1)] * (vocab_size - 1), rel=1e-5)


def test_the_bias_towards_blank_can_be_learned():
    network = Transducer(**config(ctc=True))
    for output in (network.joiner.output, network.ctc_output):
        assert output.bias.requires_grad
        assert output.bias.is_leaf
        assert output.bias.tolist() == pytest.approx([math.log(9 * 6), *[0.0] * 6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictor": {"kind": "gru", "d_model": 6}}, r"predictor.kind must be .*'gru'"),
        ({"predictor": {"d_model": 6}}, r"predictor: key 'kind' is missing"),
        ({"predictor": {"kind": "lstm", "d_model": 6, "contexts": 2}}, r"predictor: .*contexts"),
        ({"encoder": {"n_features": 6, "d_model": 8}}, r"encoder: .*ffn_dims"),
        ({"encoder": {**config()["encoder"], "d_modle": 8}}, r"encoder: .*d_modle"),
        ({"encoder": {**config()["encoder"], "n_heads": 3}}, r"encoder: .*multiple of heads"),
        (
            {"encoder": {**config()["encoder"], "channels": [1]}},
            r"encoder: mhssm: 1 channels",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_part(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Transducer(**config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("look_ahead", [0, 2])
@torch.no_grad()
def test_the_causal_form_of_a_dual_mode_network_is_its_causal_mode(look_ahead):
    options = {**config()["encoder"], "dual_mode": True, "look_ahead": look_ahead}
    network = Transducer(**config(encoder=options, ctc=True)).eval()
    causal = network.causal_form()
    features, lengths = torch.randn(2, 20, 6), torch.tensor([20, 13])
    expected, _ = network.encoder(features, lengths, causal=True)
    assert torch.equal(causal.encoder(features, lengths)[0], expected)
    assert torch.equal(causal.ctc_output(expected), network.ctc_output(expected))
    assert not causal.training
    assert not any("backward_ssms" in name for name in causal.state_dict())
    again = Transducer(**causal.config)
    assert again.state_dict().keys() == causal.state_dict().keys()
    assert again.encoder.subsampling.look_ahead == 3 * look_ahead
    assert causal.causal_form() is causal


def test_a_network_that_needs_whole_utterances_has_no_causal_form():
    with pytest.raises(
        ConfigError, match="needs whole utterances: train one that is causal or dual_mode"
    ):
        Transducer(**config()).causal_form()


def test_a_deployed_network_has_the_same_outputs_without_the_auxiliaries_of_training():
    network = Transducer(**config(ctc=True, simple_joiner=True)).eval()
    deployed = network.deployed()
    assert deployed.ctc_output is None
    assert deployed.simple_joiner is None
    assert not deployed.training
    features, lengths = torch.randn(2, 20, 6), torch.tensor([20, 13])
    for a, b in zip(
        network.encoder(features, lengths), deployed.encoder(features, lengths), strict=True
    ):
        assert torch.equal(a, b)
    with torch.no_grad():
        network.joiner.output.bias.add_(1)
    assert not torch.equal(network.joiner.output.bias, deployed.joiner.output.bias)
    assert Transducer(**deployed.config).state_dict().keys() == deployed.state_dict().keys()
