"""Units sorted by importance: the network computes what it did, and leading parts matter most."""

import copy

import pytest
import torch

from todm_sb.nnet.elastic import ElasticFFN
from todm_sb.nnet.ssm import MultiHeadSSM
from todm_sb.space import SearchSpace
from todm_sb.supernet import extract_subnet
from todm_sb.supernet.importance import importance, sort_by_importance

KINDS = {
    "mhssm": {"n_heads": 6, "d_inner": 24},
    "stacked": {"n_heads": [6, 6, 6, 6], "d_inner": 24, "n_stack": 2},
    "causal": {"causal": True, "n_heads": 6, "d_inner": 24},
    "dual": {"dual_mode": True, "n_heads": 6, "d_inner": 24},
    "conformer": {"kind": "conformer", "n_heads": 2, "kernel_size": 3},
}


@pytest.fixture(params=KINDS)
def network(request, make_transducer):
    network = make_transducer(**KINDS[request.param], dropout=0.3)
    with torch.no_grad():  # units of very different sizes
        for part in network.modules():
            if isinstance(part, ElasticFFN):
                part.w_2.weight *= torch.rand(part.d_hidden) + 0.1
            if isinstance(part, MultiHeadSSM):
                part.w_out.weight *= torch.rand(part.w_out.in_features) + 0.1
    return network


def batches(n=2):
    lengths = torch.tensor([30, 17])
    return [(torch.randn(2, 30, 6), lengths) for _ in range(n)]


def parts_of(network, kind):
    return [part for part in network.encoder.modules() if isinstance(part, kind)]


@torch.no_grad()
def outputs_of(network, part, features, length, change=None):
    """What a part of the network puts out for one utterance, unpadded, changed within."""
    found = []
    changed = copy.deepcopy(part)
    if change is not None:
        change(changed)
    hook = part.register_forward_hook(lambda _, inputs, __: found.append(changed.forward(*inputs)))
    network.encoder(features[:length].unsqueeze(0), torch.tensor([length]))
    hook.remove()
    return found[0]


def without(names, channels):
    """Makes nothing of some input channels of a layer's last projection."""

    def change(part):
        getattr(part, names).weight.data[:, channels] = 0

    return change


def ablation(network, part, name, groups, data):
    """The summed square of what leaving each group of channels out changes, utterance by
    utterance."""
    scores = []
    for channels in groups:
        score = 0.0
        for features, lengths in data:
            for utterance, length in zip(features, lengths.tolist(), strict=True):
                whole = outputs_of(network, part, utterance, length)
                less = outputs_of(network, part, utterance, length, without(name, channels))
                score += float((whole - less).square().sum())
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)


def test_importance_is_the_squared_error_of_leaving_a_unit_out(network):
    data = batches()
    found = importance(network, data)
    ffn = parts_of(network, ElasticFFN)[1]
    units = [[i] for i in range(ffn.d_hidden)]
    torch.testing.assert_close(
        found[ffn], ablation(network, ffn, "w_2", units, data), rtol=1e-3, atol=1e-5
    )
    for ssm in parts_of(network, MultiHeadSSM)[:1]:
        pairs = torch.arange(ssm.w_out.in_features).chunk(ssm.n_heads // 2)
        torch.testing.assert_close(
            found[ssm], ablation(network, ssm, "w_out", pairs, data), rtol=1e-3, atol=1e-5
        )


def test_a_sorted_network_computes_what_it_did(network):
    before, data = copy.deepcopy(network), batches()
    sort_by_importance(network, data)
    changed = [
        n for n, p in network.named_parameters() if not torch.equal(p, before.get_parameter(n))
    ]
    assert any("w_1" in name or "ffn" in name for name in changed)
    assert all(name.startswith("encoder.layers") for name in changed)
    (features, lengths), *_ = batches(1)
    for causal in network.encoder.modes:
        got, expected = (x.encoder(features, lengths, causal=causal)[0] for x in (network, before))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    # One that streams does so, too.
    if network.encoder.modes == (True,):
        state = network.encoder.initial_state(2)
        got, *_ = network.encoder.chunk(features, state, lengths)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_first_units_matter_most_and_the_scores_move_with_them(network):
    data = batches()
    before = importance(network, data)
    sort_by_importance(network, data)
    after = importance(network, data)
    assert before.keys() == after.keys()
    assert len(after) == len(parts_of(network, ElasticFFN)) + len(parts_of(network, MultiHeadSSM))
    for part, scores in after.items():
        torch.testing.assert_close(
            scores, before[part].sort(descending=True).values, rtol=1e-4, atol=0
        )
    assert all(scores.diff().le(1e-6 * scores[0]).all() for scores in after.values())


def test_only_the_dimensions_that_are_asked_for_are_sorted(network):
    before = copy.deepcopy(network)
    sort_by_importance(network, batches(), ["ffn_dims"])
    for ours, theirs in zip(
        parts_of(network, MultiHeadSSM), parts_of(before, MultiHeadSSM), strict=True
    ):
        assert all(
            torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
        )
    sort_by_importance(before, batches(), [])
    assert not network.training


def test_the_narrow_part_of_a_sorted_network_is_nearer_to_the_whole(network):
    """Of units whose sizes are at random, the cut of the sorted ones errs less."""
    data = batches(4)
    narrow = SearchSpace(4, 4, ffn_dims=(4, 12)).min
    features, lengths = data[0]

    def error(model):
        whole, cut = (
            x.encoder(features, lengths)[0] for x in (model, extract_subnet(model, narrow))
        )
        return float((whole - cut).square().sum())

    with torch.no_grad():
        unsorted = error(network)
        sort_by_importance(network, data)
        assert error(network) < unsorted
