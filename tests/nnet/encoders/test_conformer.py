"""The Conformer kind against SpeechBrain's own encoder, and what an elastic encoder promises."""

import pytest
import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder as Theirs

from todm_sb.nnet.encoders import ConformerEncoder, causal_form, streaming
from todm_sb.space import SubnetConfig
from todm_sb.utils.errors import ConfigError

LENGTHS = torch.tensor([37, 20, 5])
SUBNET = SubnetConfig((0, 2), ffn_dims=(12, 5))


@pytest.fixture
def encoder(scatter_parameters):
    network = ConformerEncoder(
        n_features=6, d_model=8, ffn_dims=[12, 12, 12], n_heads=2, kernel_size=5, channels=(3, 4)
    )
    return scatter_parameters(network).eval()


def their_name(name):
    """Our parameter's name in SpeechBrain's encoder."""
    for ours, theirs in {
        "norm_ffn_1": "ffn_module1.0",
        "norm_ffn_2": "ffn_module2.0",
        "ffn_1.w_1": "ffn_module1.1.ffn.0",
        "ffn_1.w_2": "ffn_module1.1.ffn.3",
        "ffn_2.w_1": "ffn_module2.1.ffn.0",
        "ffn_2.w_2": "ffn_module2.1.ffn.3",
        "norm_attention": "norm1.norm",
        "norm_out": "norm2.norm",
        "attention.": "mha_layer.",
        "convolution.": "convolution_module.",
    }.items():
        name = name.replace(ours, theirs)
    return f"norm.{name}" if name.startswith("norm.") else name


def speechbrains(encoder):
    """SpeechBrain's encoder with the weights of one whose layers are alike."""
    (width,) = set(encoder.dimensions["ffn_dims"])
    theirs = Theirs(len(encoder.layers), 8, width, 2, kernel_size=5)
    ours = {k: v for k, v in encoder.state_dict().items() if k.startswith(("layers.", "norm."))}
    theirs.load_state_dict({their_name(name): value for name, value in ours.items()})
    return theirs.train(encoder.training)


@pytest.mark.parametrize(
    "subnet",
    [None, SubnetConfig((1,), ffn_dims=(12,)), SubnetConfig((0, 2), ffn_dims=(5, 5))],
    ids=["max", "one layer", "narrow"],
)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_subnet_is_speechbrains_encoder_of_its_size(encoder, subnet, batch, training):
    encoder.train(training)
    theirs = speechbrains(encoder.extract(subnet) if subnet else encoder)
    frames = torch.randn(batch, 11, 8)
    expected, *_ = theirs(frames, pos_embs=encoder.shared(11)[0])
    got = encoder.encode(frames, torch.tensor([11] * batch), subnet)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subnet", [None, SUBNET])
@torch.no_grad()
def test_an_utterance_is_encoded_the_same_alone_and_in_a_padded_batch(encoder, subnet):
    features = torch.randn(3, 37, 6)
    for row, length in enumerate(LENGTHS):
        features[row, length:] = 1e4
    together, n_frames = encoder(features, LENGTHS, subnet)
    for row, length in enumerate(LENGTHS):
        alone, n = encoder(features[row : row + 1, :length], LENGTHS[row : row + 1], subnet)
        assert n.item() == n_frames[row].item() == alone.shape[1]
        part = together[row, : n_frames[row]]
        torch.testing.assert_close(part, alone[0], rtol=1e-5, atol=1e-5)
        assert (together[row, n_frames[row] :] == 0).all()


@torch.no_grad()
def test_an_extracted_subnet_is_the_encoder_under_it(encoder):
    features = torch.randn(3, 37, 6)
    small = encoder.extract(SUBNET)
    expected, _ = encoder(features, LENGTHS, SUBNET)
    torch.testing.assert_close(small(features, LENGTHS)[0], expected, rtol=1e-5, atol=1e-5)
    again = ConformerEncoder(**{k: v for k, v in small.config.items() if k != "kind"}).eval()
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(features, LENGTHS)[0], expected, rtol=1e-5, atol=1e-5)
    assert encoder.n_parameters(SUBNET) == sum(p.numel() for p in small.parameters())
    assert encoder.n_bytes(SUBNET) == sum(4 * t.numel() for t in small.state_dict().values())


@torch.no_grad()
def test_shared_positions_change_nothing(encoder):
    frames, lengths = encoder.subsampling(torch.randn(3, 37, 6), LENGTHS)
    shared = encoder.shared(frames.shape[1])
    expected = encoder.encode(frames, lengths, SUBNET)
    assert torch.equal(encoder.encode(frames, lengths, SUBNET, shared), expected)


@torch.no_grad()
def test_positions_of_more_frames_serve_a_part_of_the_batch(encoder):
    frames, lengths = encoder.subsampling(torch.randn(3, 37, 6), LENGTHS)
    shared, part = encoder.shared(frames.shape[1]), frames[1:, : lengths[1]]
    expected = encoder.encode(part, lengths[1:], SUBNET)
    assert len(expected[0]) < frames.shape[1]
    got = encoder.encode(part, lengths[1:], SUBNET, shared)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_both_feed_forward_layers_have_the_dropout_of_their_width():
    encoder = ConformerEncoder(6, 8, [12, 6], n_heads=2, dropout=0.4)
    for layer, width in zip(encoder.layers, (12, 6), strict=True):
        for ffn in (layer.ffn_1, layer.ffn_2):
            assert ffn.dropout_of(width) == pytest.approx(0.4 * width / 12)
            assert ffn.extract(3).dropout_of(3) == pytest.approx(0.1)


def test_it_neither_streams_nor_becomes_causal(encoder):
    for ask in (streaming, causal_form):
        with pytest.raises(ConfigError, match="conformer"):
            ask(encoder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n_heads": 3}, "n_heads"), ({"kernel_size": 4}, "odd"), ({"d_model": 9}, "n_heads|even")],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    options = {"n_features": 6, "d_model": 8, "ffn_dims": [12], "n_heads": 2, **changes}
    with pytest.raises(ValueError, match=message):
        ConformerEncoder(**options)
