import math

import pytest
import torch

from todm_sb.nnet import elastic
from todm_sb.nnet.encoders import mhssm
from todm_sb.nnet.encoders.mhssm import MHSSMEncoder
from todm_sb.nnet.subsampling import ENDLESS
from todm_sb.space import SubnetConfig

SUBNETS = [None, SubnetConfig((0, 2, 3), ffn_dims=(12, 5, 9)), SubnetConfig((1,), ffn_dims=(1,))]
LENGTHS = torch.tensor([37, 20, 5])


@pytest.fixture
def make_encoder(scatter_parameters):
    def make(dtype=torch.double, **options):
        torch.manual_seed(0)
        encoder = MHSSMEncoder(
            n_features=6,
            d_model=8,
            ffn_dims=[12, 12, 12, 12],
            state_size=3,
            channels=(3, 4),
            **{"n_heads": 4, **options},
        )
        return scatter_parameters(encoder.to(dtype)).eval()

    return make


def batch_with_garbage(dtype=torch.double):
    features = torch.randn(3, 37, 6, dtype=dtype)
    for row, length in enumerate(LENGTHS):
        features[row, length:] = 1e4 * torch.randn(37 - length, 6, dtype=dtype)
    return features


@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"dual_mode": True, "look_ahead": 2}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float, 1e-5), (torch.double, 1e-10)])
@torch.no_grad()
def test_an_utterance_is_encoded_the_same_alone_and_in_a_padded_batch(
    make_encoder, subnet, options, dtype, tolerance
):
    encoder = make_encoder(dtype, **options)
    features = batch_with_garbage(dtype)
    together, n_frames = encoder(features, LENGTHS, subnet)
    for row, length in enumerate(LENGTHS):
        alone, n = encoder(features[row : row + 1, :length], LENGTHS[row : row + 1], subnet)
        assert n.item() == n_frames[row].item() == alone.shape[1]
        torch.testing.assert_close(
            together[row, : n_frames[row]], alone[0], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("subnet", SUBNETS)
@torch.no_grad()
def test_padded_outputs_are_exactly_zero(make_encoder, subnet):
    outputs, n_frames = make_encoder()(batch_with_garbage(), LENGTHS, subnet)
    assert n_frames.tolist() == [10, 5, 2]
    for row, n in enumerate(n_frames):
        assert (outputs[row, n:] == 0).all()
        assert (outputs[row, :n] != 0).any(-1).all()


@pytest.mark.parametrize("subnet", SUBNETS)
@torch.no_grad()
def test_the_active_layers_run_in_order_with_pre_norms_and_residuals(make_encoder, subnet):
    encoder = make_encoder()
    x = torch.randn(2, 9, 8, dtype=torch.double)
    lengths = torch.tensor([9, 9])
    outputs = encoder.encode(x, lengths, subnet)

    def norm(x, module):
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * module.weight + module.bias

    layers, widths = (range(4), [12] * 4) if subnet is None else (subnet.layers, subnet["ffn_dims"])
    mask = torch.ones(2, 9, 1, dtype=torch.double)
    for i, width in zip(layers, widths, strict=True):
        layer = encoder.layers[i]
        x = x + layer.ssm(norm(x, layer.norm_ssm), mask)
        w_1, w_2 = layer.ffn.w_1, layer.ffn.w_2
        hidden = norm(x, layer.norm_ffn) @ w_1.weight[:width].T + w_1.bias[:width]
        x = x + (hidden * torch.sigmoid(hidden)) @ w_2.weight[:, :width].T + w_2.bias
    torch.testing.assert_close(outputs, norm(x, encoder.norm), rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_subnet_leaves_no_trace_in_the_network(make_encoder):
    encoder = make_encoder()
    features = batch_with_garbage()
    before, _ = encoder(features, LENGTHS)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    small, _ = encoder(features, LENGTHS, SUBNETS[1])
    after, _ = encoder(features, LENGTHS)
    assert not torch.allclose(small, before)
    assert torch.equal(before, after)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[name])


@torch.no_grad()
def test_the_max_config_and_no_config_are_the_same_network(make_encoder):
    encoder = make_encoder()
    features = batch_with_garbage()
    config = SubnetConfig((0, 1, 2, 3), ffn_dims=(12, 12, 12, 12))
    assert torch.equal(encoder(features, LENGTHS)[0], encoder(features, LENGTHS, config)[0])


@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_shared_spectra_change_nothing(make_encoder, subnet, causal):
    encoder = make_encoder(n_stack=2, dual_mode=True)
    frames, n_frames = encoder.subsampling(batch_with_garbage(), LENGTHS)
    shared = encoder.encode(frames, n_frames, subnet, encoder.shared(frames.shape[1], causal))
    assert torch.equal(shared, encoder.encode(frames, n_frames, subnet, causal=causal))


@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize("look_ahead", [0, 1])
@torch.no_grad()
def test_a_dual_mode_encoder_runs_as_one_that_was_built_causal(make_encoder, subnet, look_ahead):
    options = {"look_ahead": look_ahead, "n_stack": 2}
    dual, causal = make_encoder(dual_mode=True, **options), make_encoder(causal=True, **options)
    weights = dual.state_dict()
    causal.load_state_dict({name: weights[name] for name in causal.state_dict()})
    features = batch_with_garbage()
    outputs, n_frames = dual(features, LENGTHS, subnet, causal=True)
    expected, expected_n = causal(features, LENGTHS, subnet)
    assert torch.equal(outputs, expected)
    assert torch.equal(n_frames, expected_n)
    assert not torch.allclose(outputs, dual(features, LENGTHS, subnet)[0])


def test_an_encoder_is_causal_or_dual_mode_or_neither(make_encoder):
    assert make_encoder().modes == (False,)
    assert make_encoder(causal=True).modes == (True,)
    assert make_encoder(dual_mode=True).modes == (False, True)
    with pytest.raises(ValueError, match="no dual_mode"):
        make_encoder(causal=True, dual_mode=True)


@pytest.mark.parametrize(
    ("options", "causal"), [({"causal": True}, True), ({}, False), ({"dual_mode": True}, False)]
)
@torch.no_grad()
def test_only_a_causal_encoder_ignores_later_features(make_encoder, options, causal):
    encoder = make_encoder(**options)
    features = torch.randn(1, 40, 6, dtype=torch.double)
    changed = features.clone()
    changed[:, 24:] += 1
    lengths = torch.tensor([40])
    difference = (encoder(features, lengths)[0] - encoder(changed, lengths)[0]).abs().amax((0, 2))
    # Output frame t stands for feature frames up to 4 t: frames 0 to 5 know nothing of frame 24.
    assert (difference[:6] < 1e-12).all() if causal else (difference[:6] > 1e-9).all()
    assert (difference[6:] > 1e-6).all()


@torch.no_grad()
def test_a_causal_block_runs_chunk_by_chunk(make_encoder):
    encoder = make_encoder(causal=True, n_stack=2)
    layer = encoder.layers[0]
    x = torch.randn(2, 11, 8, dtype=torch.double)
    state, outputs = layer.ssm.initial_state(2), []
    for part in x.split([3, 1, 7], dim=1):
        y, state = layer.chunk(part, state)
        outputs.append(y)
    whole = layer(x, torch.ones(2, 11, 1, dtype=torch.double))
    torch.testing.assert_close(torch.cat(outputs, dim=1), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize("look_ahead", [0, 2])
@pytest.mark.parametrize("sizes", [[37], [1] * 37, [8, 8, 16, 5], [3, 30, 4]])
@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_any_chunking_gives_the_frames_of_the_whole(
    make_encoder, subnet, look_ahead, sizes, shared
):
    encoder = make_encoder(causal=True, look_ahead=look_ahead, n_stack=2)
    features = batch_with_garbage()
    whole, n_frames = encoder(features, LENGTHS, subnet)
    encoder = encoder.extract(subnet) if subnet else encoder
    operators = encoder.operators(4) if shared else None
    state, parts, counts, seen = encoder.initial_state(3), [], 0, 0
    after = torch.randn(3, encoder.look_ahead, 6, dtype=torch.double)
    for chunk in [*features.split(sizes, dim=1), after]:
        seen += chunk.shape[1]
        ends = torch.where(seen > LENGTHS, LENGTHS, ENDLESS) if seen <= 37 else LENGTHS
        frames, n_new, state = encoder.chunk(chunk, state, ends, operators)
        for row, n in enumerate(n_new):
            assert (frames[row, n:] == 0).all()
        parts.append(frames)
        counts = counts + n_new
    together = torch.cat(parts, dim=1)
    assert counts.tolist() == n_frames.tolist()
    torch.testing.assert_close(together, whole, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_long_stream_stays_close_to_the_whole_in_single_precision(make_encoder):
    encoder = make_encoder(torch.float, causal=True)
    features = torch.randn(1, 4000, 6)
    whole, _ = encoder(features, torch.tensor([4000]))
    state, parts = encoder.initial_state(1), []
    for chunk in features.split(32, dim=1):
        frames, _, state = encoder.chunk(chunk, state, torch.tensor([ENDLESS]))
        parts.append(frames)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def test_a_bidirectional_encoder_cannot_run_in_chunks(make_encoder):
    encoder = make_encoder()
    with pytest.raises(ValueError, match="bidirectional"):
        encoder.chunk(
            torch.randn(1, 9, 6, dtype=torch.double),
            encoder.initial_state(1),
            torch.tensor([ENDLESS]),
        )


@torch.no_grad()
def test_the_encoder_runs_under_bfloat16_autocast(make_encoder):
    encoder = make_encoder(torch.float)
    features = torch.randn(2, 37, 6)
    lengths = torch.tensor([37, 20])
    exact, _ = encoder(features, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = encoder(features, lengths)
    torch.testing.assert_close(outputs.float(), exact, rtol=0, atol=0.1)
    assert (outputs[1, 5:] == 0).all()


def test_dropout_follows_the_width_in_the_ffn_and_not_in_the_ssm_branch(make_encoder, monkeypatch):
    encoder = make_encoder(dropout=0.4).train()
    used = []

    def dropout(x, p, training):
        used.append((x.shape[-1], p, training))
        return x

    for module in (elastic, mhssm):
        monkeypatch.setattr(module, "dropout", dropout)
    encoder(torch.randn(1, 8, 6, dtype=torch.double), torch.tensor([8]), SUBNETS[1])
    expected = []
    for width in SUBNETS[1]["ffn_dims"]:
        expected += [(8, 0.4, True), (width, pytest.approx(0.4 * width / 12), True)]
    assert used == expected


@pytest.mark.parametrize(("dropout_width", "full"), [(None, 20), (40, 40)])
def test_layers_of_different_widths_share_the_full_width_of_the_dropout_rule(dropout_width, full):
    encoder = MHSSMEncoder(
        6, 8, [5, 20, 10], n_heads=4, dropout=0.4, dropout_width=dropout_width, channels=(3, 4)
    )
    rates = [layer.ffn.dropout_of(layer.ffn.d_hidden) for layer in encoder.layers]
    assert rates == pytest.approx([0.4 * width / full for width in (5, 20, 10)])


def test_layers_and_widths_that_do_not_exist_are_refused(make_encoder):
    encoder = make_encoder()
    features = torch.randn(1, 8, 6, dtype=torch.double)
    with pytest.raises(IndexError):
        encoder(features, torch.tensor([8]), SubnetConfig((0, 4), ffn_dims=(12, 12)))
    with pytest.raises(ValueError, match=r"13 is outside 1\.\.12"):
        encoder(features, torch.tensor([8]), SubnetConfig((0,), ffn_dims=(13,)))


def test_sizes_are_told(make_encoder):
    encoder = make_encoder()
    assert encoder.d_model == 8
    assert encoder.dimensions["ffn_dims"] == (12, 12, 12, 12)


def test_an_utterance_without_frames_is_zeros_whatever_its_features_are(make_transducer):
    encoder = make_transducer().encoder
    features = torch.randn(2, 20, 6)
    features[1] = math.nan  # statistics of no frames are not numbers
    encoded, n_frames = encoder(features, torch.tensor([20, 0]))
    assert n_frames.tolist() == [5, 0]
    assert not encoded[1].any()
    torch.testing.assert_close(encoded[:1], encoder(features[:1], torch.tensor([20]))[0])


@torch.no_grad()
@pytest.mark.parametrize("n_heads", [4, [4, 4, 4, 4]])
def test_what_is_built_by_an_extracted_networks_config_takes_its_weights(make_encoder, n_heads):
    encoder = make_encoder(n_heads=n_heads)
    for subnet in (
        SubnetConfig((0, 2, 3), ffn_dims=(12, 5, 9), n_heads=(2, 4, 2)),
        SubnetConfig((0, 1), ffn_dims=(12, 12), n_heads=(4, 4)),
    ):
        small = encoder.extract(subnet)
        arguments = {key: value for key, value in small.config.items() if key != "kind"}
        again = MHSSMEncoder(**arguments).double().eval()
        again.load_state_dict(small.state_dict())
        features = batch_with_garbage()
        torch.testing.assert_close(again(features, LENGTHS), encoder(features, LENGTHS, subnet))
