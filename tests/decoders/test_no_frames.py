"""Where there are no frames there are no labels, whatever search is asked."""

import pytest
import torch
from speechbrain.lobes.models.RNNLM import RNNLM
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import GRU, LSTM
from speechbrain.nnet.transducer.transducer_joint import Transducer_joint

from todm_sb.decoders.speechbrain import TransducerBeamSearcher
from todm_sb.decoders.transducer import TransducerSearcher

D = 8


def ours(make_transducer, kind, beam_size, lm):
    model = make_transducer(kind)
    with torch.no_grad():
        model.joiner.output.bias[model.blank] -= 5
    weight = 0.5 if lm else 0.0
    return TransducerSearcher(model, beam_size, 2, beam_size, lm, weight)


def speechbrains(make_transducer, kind, beam_size, lm):
    recurrent = {"lstm": LSTM, "stateless": GRU}[kind](D, input_size=D)
    joint = Transducer_joint(Linear(D, input_size=2 * D), joint="concat")
    embedding = Embedding(7, D)
    output = Linear(7, input_size=D)
    with torch.no_grad():
        output.w.bias[0] -= 5
    weight = 0.5 if lm else 0.0
    return TransducerBeamSearcher(
        [embedding, recurrent], joint, [output], 0, beam_size, beam_size, lm, weight
    ).eval()


@pytest.fixture(params=["lstm", "stateless"])
def make_searcher(request, make_transducer):
    def make(maker, beam_size, lm=False):
        return maker(make_transducer, request.param, beam_size, lm)

    return make


@pytest.mark.parametrize("maker", [ours, speechbrains])
@pytest.mark.parametrize(("beam_size", "lm"), [(1, False), (3, False), (3, True)])
def test_no_frames_have_no_labels(make_searcher, maker, beam_size, lm):
    lm = RNNLM(7, 4, rnn_neurons=4, dnn_neurons=4, return_hidden=True).eval() if lm else None
    searcher = make_searcher(maker, beam_size, lm)
    for batch, T in ((2, 0), (1, 0), (0, 0), (0, 5)):
        for wav_lens in (None, torch.ones(batch), torch.zeros(batch)):
            tokens, score, nbest, scores = searcher(torch.zeros(batch, T, D), wav_lens)
            assert tokens == [[]] * batch
            # The probability of nothing is 1; there is no mean of none.
            assert score.isnan() if batch == 0 else score == 1
            if beam_size == 1:
                assert nbest is None
            else:
                assert nbest == [[[]]] * batch
                assert scores == [[0.0]] * batch
    for T in (0, 5):
        found = searcher.search(torch.zeros(2, T, D), torch.tensor([0, 0]))
        assert [h[0].tokens for h in found] == [[], []]


@pytest.mark.parametrize("maker", [ours, speechbrains])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_row_without_frames_leaves_the_others_as_they_are(make_searcher, maker, beam_size):
    searcher = make_searcher(maker, beam_size)
    encoded = torch.randn(3, 6, D)
    alone = [searcher(encoded[i : i + 1])[0][0] for i in (0, 2)]
    tokens, _, nbest, _ = searcher(encoded, torch.tensor([1.0, 0.0, 1.0]))
    assert tokens == [alone[0], [], alone[1]]
    assert min(map(len, alone)) > 0
    assert searcher(encoded, torch.zeros(3))[0] == [[], [], []]
    if beam_size > 1:
        assert nbest[1] == [[]]
