"""Greedy CTC search against the definition, one utterance and one frame at a time."""

import random

import pytest
import torch
from torch import nn

from todm_sb.decoders.ctc import CTCSearcher
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.protocol import Searcher
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.utils.errors import ConfigError


@torch.no_grad()
def read_one(head, encoded):
    """Frame by frame: the best symbol; a label that is no repeat of the last frame's is read."""
    tokens, frames, log_probs, score, last = [], [], [], 0.0, None
    for t, frame in enumerate(encoded):
        logits = (head.weight @ frame + head.bias).double()
        symbol = max(range(len(logits)), key=lambda v: logits[v].item())
        log_prob = (logits[symbol] - logits.exp().sum().log()).item()
        score += log_prob
        if symbol not in (0, last):
            tokens.append(symbol)
            frames.append(t)
            log_probs.append(log_prob)
        last = symbol
    return Hypothesis(tokens, frames, log_probs, score)


def make_batch(make_transducer, seed):
    """Frames that come in runs, so that labels repeat with and without a blank between them."""
    model = make_transducer(ctc=True, seed=seed)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.ctc_output.weight.mul_(4)
        model.ctc_output.bias.zero_()
    kinds = 3 * torch.randn(4, 8, generator=generator)
    order = [[kind for _ in range(60) for kind in [rng.randrange(4)] * rng.randint(1, 3)][:60]]
    encoded = torch.stack([kinds[order[0]], *(kinds[order[0]].flip(0).roll(i, 0) for i in (3, 9))])
    encoded = encoded + 0.1 * torch.randn(encoded.shape, generator=generator)
    return model, encoded, torch.tensor([60, 41, 0])


@pytest.mark.parametrize("seed", range(8))
def test_each_utterance_is_read_as_it_is_alone_by_definition(make_transducer, seed):
    model, encoded, n_frames = make_batch(make_transducer, seed)
    found = CTCSearcher(model).search(encoded, n_frames)
    assert [len(hypotheses) for hypotheses in found] == [1, 1, 1]
    for (got,), frames, n in zip(found, encoded, n_frames, strict=True):
        expected = read_one(model.ctc_output, frames[:n])
        assert (got.tokens, got.frames) == (expected.tokens, expected.frames)
        assert got.log_probs == pytest.approx(expected.log_probs, abs=1e-5)
        assert got.score == pytest.approx(expected.score, abs=1e-4)
    assert len(found[0][0].tokens) < 60
    assert found[2] == [Hypothesis([], [], [], 0.0)]


def test_repeats_are_one_label_and_a_blank_between_them_makes_two():
    class Network(nn.Module):
        blank = 0
        ctc_output = nn.Identity()

    symbols = [1, 1, 0, 1, 2, 2, 2, 0, 0, 3, 1]
    encoded = 20 * torch.eye(4)[symbols].unsqueeze(0)
    ((best,),) = CTCSearcher(Network()).search(encoded, torch.tensor([11]))
    assert best.tokens == [1, 1, 2, 3, 1]
    assert best.frames == [0, 3, 4, 9, 10]
    assert best.score == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("padding", [0.0, 1e30, float("nan"), float("inf")])
def test_whatever_is_in_the_padding_nothing_changes(make_transducer, padding):
    model, encoded, n_frames = make_batch(make_transducer, 3)
    expected = CTCSearcher(model).search(encoded, n_frames)
    for i, n in enumerate(n_frames.tolist()):
        encoded[i, n:] = padding
    assert CTCSearcher(model).search(encoded, n_frames) == expected


def test_a_batch_without_a_frame_reads_nothing(make_transducer):
    searcher = CTCSearcher(make_transducer(ctc=True))
    for shape in ((2, 0, 8), (2, 3, 8)):
        found = searcher.search(torch.ones(shape), torch.tensor([0, 0]))
        assert found == [[Hypothesis([], [], [], 0.0)]] * 2


def test_the_number_of_transfers_does_not_grow_with_the_frames(make_transducer, monkeypatch):
    model = make_transducer(ctc=True)
    counts = []
    for n in (5, 500):
        calls = []
        with monkeypatch.context() as patch:
            for name in ("tolist", "item", "nonzero", "cpu", "__bool__", "__int__"):
                original = getattr(torch.Tensor, name)
                patch.setattr(
                    torch.Tensor,
                    name,
                    lambda *a, f=original, calls=calls, **k: calls.append(1) or f(*a, **k),
                )
            CTCSearcher(model).search(torch.randn(2, n, 8), torch.tensor([n, n - 1]))
        counts.append(len(calls))
    assert counts[0] == counts[1] <= 8


def test_a_network_without_a_ctc_head_is_refused(make_transducer):
    with pytest.raises(ConfigError, match="CTCSearcher needs a CTC head: set the model's ctc"):
        CTCSearcher(make_transducer())
    with pytest.raises(ConfigError, match="exported networks have none"):
        CTCSearcher(make_transducer(ctc=True).deployed())


def test_all_searchers_follow_one_protocol_and_have_a_greedy_form(make_transducer):
    model = make_transducer(ctc=True)
    beam, ctc = TransducerSearcher(model, 4, 2, nbest=3), CTCSearcher(model)
    assert isinstance(beam, Searcher)
    assert ctc.greedy() is ctc
    greedy = beam.greedy()
    assert (greedy.beam_size, greedy.max_symbols, greedy.nbest) == (1, 2, 1)
    assert (beam.beam_size, beam.nbest) == (4, 3)
    encoded, n_frames = torch.randn(2, 9, 8), torch.tensor([9, 5])
    expected = TransducerSearcher(model, max_symbols=2).search(encoded, n_frames)
    assert greedy.search(encoded, n_frames) == expected
