"""The drop-in searcher against SpeechBrain's own, over the same networks of SpeechBrain's parts."""

import math

import pytest
import torch
from speechbrain.decoders.transducer import TransducerBeamSearcher as Peer
from speechbrain.lobes.models.RNNLM import RNNLM
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import GRU, LSTM, RNN, LiGRU
from speechbrain.nnet.transducer.transducer_joint import Transducer_joint
from torch import nn

from todm_sb.decoders.speechbrain import MAX_SYMBOLS, TransducerBeamSearcher
from todm_sb.utils.errors import ConfigError

V, D, J, T = 12, 8, 10, 60
LENGTHS = [60, 37, 1, 18]

RECURRENT = {
    "lstm": lambda: [LSTM(D, input_size=D)],
    "lstm of two layers": lambda: [LSTM(D, input_size=D, num_layers=2)],
    "lstm without bias": lambda: [LSTM(D, input_size=D, bias=False)],
    "gru": lambda: [GRU(D, input_size=D)],
    "rnn": lambda: [RNN(D, input_size=D)],
    "ligru": lambda: [LiGRU(D, input_shape=(1, 1, D))],
    "two lstms": lambda: [LSTM(D, input_size=D), LSTM(D, input_size=D)],
    "two grus": lambda: [GRU(D, input_size=D), nn.LayerNorm(D), GRU(D, input_size=D)],
}
JOINTS = {
    "sum": lambda: (Transducer_joint(nonlinearity=nn.Tanh), J),
    "concat": lambda: (Transducer_joint(Linear(J, input_size=2 * J), "concat"), J),
    "concat, torch": lambda: (Transducer_joint(nn.Linear(2 * J, J, False), "concat", nn.Tanh), J),
    "concat, deep": lambda: (
        Transducer_joint(nn.Sequential(nn.Linear(2 * J, J), nn.Tanh()), "concat"),
        J,
    ),
    "concat, max_norm": lambda: (
        Transducer_joint(Linear(J, input_size=2 * J, max_norm=0.5), "concat", nn.Tanh),
        J,
    ),
    "concat, no network": lambda: (Transducer_joint(joint="concat", nonlinearity=nn.Tanh), 2 * J),
}


@torch.no_grad()
def make_parts(recurrent="lstm", joint="sum", blank=0, blank_bias=2.0, seed=0):
    """Random networks with posteriors that are not flat, and frames for them."""
    torch.manual_seed(seed)
    tjoint, d_joint = JOINTS[joint]()
    first, last = Linear(J, input_size=d_joint), Linear(V, input_size=J)
    last.w.weight.mul_(12)
    last.w.bias.normal_()
    last.w.bias[blank] += blank_bias
    parts = {
        "decode_network_lst": [Embedding(V, D), *RECURRENT[recurrent](), Linear(J, input_size=D)],
        "tjoint": tjoint,
        "classifier_network": [first, nn.Tanh(), last],
        "blank_id": blank,
    }
    for module in (*parts["decode_network_lst"], tjoint, first, last):
        module.eval()
    return parts, 3 * torch.randn(len(LENGTHS), T, J)


def tune_blank(parts, encoded, labels_a_frame=0.135):
    """Raises the bias of blank by bisection until there are no more labels than this."""
    bias = parts["classifier_network"][-1].w.bias.data
    search = TransducerBeamSearcher(**parts, beam_size=1)
    low, high = 0.0, 30.0
    for _ in range(7):
        bias[parts["blank_id"]] = (low + high) / 2
        if sum(map(len, search(encoded)[0])) > labels_a_frame * encoded[..., 0].numel():
            low = (low + high) / 2
        else:
            high = (low + high) / 2


def assert_reads_as_speechbrain(parts, encoded):
    with torch.no_grad():
        expected, expected_score, _, _ = Peer(**parts, beam_size=1)(encoded)
    found, score, nbest, nbest_scores = TransducerBeamSearcher(**parts, beam_size=1)(encoded)
    assert found == expected
    assert float(score) == pytest.approx(float(expected_score), rel=1e-3)
    assert nbest is None
    assert nbest_scores is None
    return sum(map(len, found)) / encoded[..., 0].numel()


@pytest.mark.parametrize(
    ("recurrent", "joint"), [*((r, "sum") for r in RECURRENT), *(("lstm", j) for j in JOINTS)]
)
def test_greedy_search_reads_speechbrains_tokens(recurrent, joint):
    parts, encoded = make_parts(recurrent, joint)
    tune_blank(parts, encoded)
    assert 0.05 < assert_reads_as_speechbrain(parts, encoded) < 0.25


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("blank", [0, 5, V - 1])
def test_greedy_search_reads_speechbrains_tokens_whatever_is_blank(seed, blank):
    parts, encoded = make_parts(blank=blank, seed=seed, blank_bias=6.0)
    assert assert_reads_as_speechbrain(parts, encoded) > 0.05


def test_a_frame_has_as_many_labels_at_most_as_in_speechbrains_search():
    parts, encoded = make_parts(blank_bias=-1e3)
    assert assert_reads_as_speechbrain(parts, encoded[:, :5]) == MAX_SYMBOLS


def test_one_hot_embeddings_will_do():
    parts, encoded = make_parts()
    parts["decode_network_lst"][0] = Embedding(D + 1, consider_as_one_hot=True)
    parts["classifier_network"][-1].w.bias.data[D + 1 :] = -1e3
    assert assert_reads_as_speechbrain(parts, encoded) > 0


def test_a_checkpoint_may_be_loaded_after_the_searcher_is_made():
    parts, encoded = make_parts(joint="concat", seed=1)
    searcher = TransducerBeamSearcher(**parts, beam_size=1)
    before = searcher(encoded)[0]
    with torch.no_grad():
        parts["tjoint"].joint_network.w.weight.mul_(-1)
        expected = Peer(**parts, beam_size=1)(encoded)[0]
    assert searcher(encoded)[0] == expected != before


@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_utterance_reads_alone_as_in_a_padded_batch(beam_size):
    parts, encoded = make_parts(joint="concat", blank_bias=4.0)
    searcher = TransducerBeamSearcher(**parts, beam_size=beam_size)
    # There is anything at all in the padding.
    together = searcher(encoded, torch.tensor(LENGTHS) / T)[0]
    alone = [searcher(row[None, :n])[0][0] for row, n in zip(encoded, LENGTHS, strict=True)]
    assert together == alone
    assert together != searcher(encoded)[0]


def test_beam_search_has_speechbrains_return_shape():
    parts, encoded = make_parts(blank_bias=4.0)
    best, score, nbest, scores = TransducerBeamSearcher(**parts, beam_size=4, nbest=3)(encoded)
    assert [len(row) for row in nbest] == [3] * len(LENGTHS)
    assert best == [row[0] for row in nbest]
    assert all(row == sorted(row, reverse=True) for row in scores)
    assert all(len({tuple(tokens) for tokens in row}) == 3 for row in nbest)
    mean = sum(math.exp(row[0]) for row in scores) / len(scores)
    assert float(score) == pytest.approx(mean, rel=1e-4)


def test_more_results_than_the_beam_are_as_many_as_the_beam():
    parts, encoded = make_parts()
    # SpeechBrain's defaults are a beam of 4 and the 5 best.
    assert {len(row) for row in TransducerBeamSearcher(**parts)(encoded)[2]} == {4}


@torch.no_grad()
def test_the_language_model_is_called_as_speechbrain_calls_it():
    parts, encoded = make_parts()
    lm = RNNLM(V, embedding_dim=5, rnn_neurons=6, dnn_neurons=5, return_hidden=True).eval()
    for p in lm.parameters():
        p.add_(torch.randn_like(p))
    peer = Peer(**parts, beam_size=2, lm_module=lm, lm_weight=0.7)
    fused = {"lm_module": lm, "lm_weight": 0.7}
    everything = {"beam_size": 150, "nbest": 150}

    def search(**options):
        searcher = TransducerBeamSearcher(**parts, **everything, **options)
        searcher.max_symbols = 1
        *_, nbest, scores = searcher(encoded[:1, :2])
        return dict(zip(map(tuple, nbest[0]), scores[0], strict=True))

    # In two frames this beam holds all: scores differ by the language model's alone.
    with_lm, without = search(**fused), search()
    assert len(with_lm) == 1 + (V - 1) + (V - 1) ** 2
    for tokens, score in with_lm.items():
        gain, hidden = 0.0, None
        for last, label in zip((0, *tokens), tokens, strict=False):
            log_probs, hidden = peer._lm_forward_step(torch.tensor([[last]]), hidden)
            gain += 0.7 * log_probs[0, 0, label].item()
        assert score - without[tokens] == pytest.approx(gain, abs=1e-3)


def test_a_weight_needs_a_language_model():
    parts, _ = make_parts()
    with pytest.raises(ConfigError, match="lm_module"):
        TransducerBeamSearcher(**parts, lm_weight=0.5)


@torch.no_grad()
def test_search_ends_on_networks_that_are_no_good():
    parts, encoded = make_parts(blank_bias=-1e3)
    best, *_ = TransducerBeamSearcher(**parts)(encoded)
    assert [len(tokens) for tokens in best] == [MAX_SYMBOLS * T] * len(LENGTHS)
    parts["classifier_network"][-1].w.bias.fill_(math.nan)
    for beam_size in (1, 4):
        best, *_ = TransducerBeamSearcher(**parts, beam_size=beam_size)(encoded)
        assert best == [[]] * len(LENGTHS)
