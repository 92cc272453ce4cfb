"""Beam search against an exhaustive sum over alignments and a search by dictionary."""

import functools
import math

import pytest
import torch
from torch import nn

from todm_sb.decoders.beam import beam_search
from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.language_model import ShallowFusion
from todm_sb.decoders.transducer import TransducerSearcher


def next_log_probs(model, frame, labels):
    """Log-probabilities of the next symbol at one frame, after these labels, run from the start."""
    history = torch.tensor([[model.blank, *labels]])
    outputs, _ = model.predictor(history)
    logits = model.joiner(
        model.joiner.project_encoder(frame), model.joiner.project_predictor(outputs[0, -1])
    )
    return logits.log_softmax(-1).tolist()


class TinyLM(nn.Module):
    """A recurrent language model in SpeechBrain's manner."""

    def __init__(self, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 5)
        self.rnn = nn.GRU(5, 6, num_layers=2, batch_first=True)
        self.output = nn.Linear(6, vocab_size)

    def forward(self, labels, hx=None):
        y, hx = self.rnn(self.embedding(labels), hx)
        return 4 * self.output(y), hx


def lm_gain(lm, weight, blank, labels):
    """What the language model adds to the score of a label sequence, read in one go."""
    if lm is None or not labels:
        return 0.0
    logits, _ = lm(torch.tensor([[blank, *labels[:-1]]]))
    log_probs = logits[0].log_softmax(-1)
    return weight * log_probs[range(len(labels)), list(labels)].sum().item()


def exhaustive(model, frames, max_symbols=1):
    """Log-probability of every label sequence, by enumerating all alignments."""
    totals = {}

    def follow(t, here, labels, score):
        if t == len(frames):
            totals.setdefault(labels, []).append(score)
            return
        for symbol, log_prob in enumerate(next_log_probs(model, frames[t], labels)):
            if symbol == model.blank:
                follow(t + 1, 0, labels, score + log_prob)
            elif here + 1 == max_symbols:
                follow(t + 1, 0, (*labels, symbol), score + log_prob)
            else:
                follow(t, here + 1, (*labels, symbol), score + log_prob)

    follow(0, 0, (), 0.0)
    return {labels: math.log(sum(map(math.exp, scores))) for labels, scores in totals.items()}


def by_dictionary(model, frames, beam_size, lm=None, weight=0.0, max_symbols=1, state_beam=2.3):
    """The same search, an utterance and a hypothesis at a time."""

    def gain(labels):
        return lm_gain(lm, weight, model.blank, labels)

    def by_blank(frame, hypotheses):
        return [
            (score + next_log_probs(model, frame, labels)[model.blank], labels)
            for score, labels in hypotheses
        ]

    def by_label(frame, hypotheses):
        return [
            (score + log_prob + gain((*labels, symbol)) - gain(labels), (*labels, symbol))
            for score, labels in hypotheses
            for symbol, log_prob in enumerate(next_log_probs(model, frame, labels))
            if symbol != model.blank
        ]

    beam = {(): 0.0}
    for frame in frames:
        done, here = [], [(score, labels) for labels, score in beam.items()]
        for _ in range(max_symbols - 1):
            done = sorted(done + by_blank(frame, here), reverse=True)
            floor = done[0][0] - state_beam
            if len(done) >= beam_size:
                floor = max(floor, done[beam_size - 1][0])
            here = sorted(by_label(frame, here), reverse=True)[:beam_size]
            here = [h for h in here if h[0] > floor]
        found = sorted(by_blank(frame, here) + by_label(frame, here), reverse=True)
        done += found[: 2 * beam_size]
        merged = {}
        for score, labels in done:
            merged.setdefault(labels, []).append(score)
        totals = {k: math.log(sum(map(math.exp, v))) for k, v in merged.items()}
        beam = dict(sorted(totals.items(), key=lambda item: -item[1])[:beam_size])
    return beam


@pytest.fixture(params=["lstm", "stateless"])
def model(request, make_transducer):
    return make_transducer(predictor=request.param, vocab_size=4, seed=3)


def frames_of(model, *lengths, seed=0):
    """Encoder outputs of utterances of these lengths, garbage after their ends."""
    torch.manual_seed(seed)
    encoded = 2 * torch.randn(len(lengths), max(lengths) + 2, model.encoder.d_model)
    return encoded, torch.tensor(lengths)


def assert_all_get(gain, model, encoded, lengths, fusion):
    """With this fusion a beam that holds everything finds all label sequences, those of the
    exhaustive search, with ``gain(labels)`` added to their scores, in falling order."""
    found = beam_search(model, encoded, lengths, 128, 128, fusions=[fusion])
    for row, length, hypotheses in zip(encoded, lengths, found, strict=True):
        expected = {
            labels: score + gain(labels)
            for labels, score in exhaustive(model, row[:length]).items()
        }
        got = {tuple(h.tokens): h.score for h in hypotheses}
        assert got == pytest.approx(expected, abs=1e-4)
        assert list(got) == sorted(got, key=got.get, reverse=True)


@torch.no_grad()
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize(("max_symbols", "n_frames"), [(1, (4, 3)), (2, (2, 1))])
def test_a_beam_that_holds_everything_sums_all_alignments(model, max_symbols, n_frames, blank):
    model.blank = model.predictor.blank = blank
    encoded, lengths = frames_of(model, *n_frames)
    size = 3**5
    options = {"max_symbols": max_symbols, "state_beam": math.inf}
    found = beam_search(model, encoded, lengths, size, size, **options)
    for row, length, hypotheses in zip(encoded, lengths, found, strict=True):
        expected = exhaustive(model, row[:length], max_symbols)
        assert {tuple(h.tokens) for h in hypotheses} == expected.keys()
        for h in hypotheses:
            assert h.score == pytest.approx(expected[tuple(h.tokens)], abs=1e-4)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


@torch.no_grad()
@pytest.mark.parametrize("max_symbols", [1, 2, 5])
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_a_small_beam_is_the_search_by_dictionary(model, beam_size, max_symbols):
    encoded, lengths = frames_of(model, 9, 5, 12)
    found = beam_search(
        model, encoded, lengths, beam_size, nbest=beam_size, max_symbols=max_symbols
    )
    for row, length, hypotheses in zip(encoded, lengths, found, strict=True):
        expected = by_dictionary(model, row[:length], beam_size, max_symbols=max_symbols)
        got = {tuple(h.tokens): h.score for h in hypotheses}
        assert got == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_a_frame_has_several_labels_where_the_network_gives_them(model):
    model.joiner.output.bias[model.blank] -= 1e3
    encoded, lengths = frames_of(model, 4, 2)
    found = beam_search(model, encoded, lengths, beam_size=2, max_symbols=3)
    assert [h[0].frames for h in found] == [
        [t for t in range(n) for _ in range(3)] for n in lengths
    ]


@torch.no_grad()
def test_a_beam_that_holds_everything_adds_the_language_model_to_all(model):
    lm, weight = TinyLM(4), 0.6
    fusion = ShallowFusion(lm, weight, model.blank)
    gain = functools.partial(lm_gain, lm, weight, model.blank)
    assert_all_get(gain, model, *frames_of(model, 4, 2), fusion)


@torch.no_grad()
def test_a_small_beam_with_a_language_model_is_the_search_by_dictionary(model):
    lm = TinyLM(4)
    model.joiner.output.bias[model.blank] -= 4
    encoded, lengths = frames_of(model, 8, 5)
    fusion = ShallowFusion(lm, 0.6, model.blank)
    found = beam_search(model, encoded, lengths, beam_size=3, nbest=3, fusions=[fusion])
    plain = beam_search(model, encoded, lengths, beam_size=3, nbest=3)
    for row, length, hypotheses in zip(encoded, lengths, found, strict=True):
        expected = by_dictionary(model, row[:length], 3, lm, 0.6)
        assert {tuple(h.tokens): h.score for h in hypotheses} == pytest.approx(expected, abs=1e-4)
    assert [h[0].tokens for h in found] != [h[0].tokens for h in plain]


@torch.no_grad()
def test_the_search_ends_on_networks_that_are_no_good(model):
    encoded, lengths = frames_of(model, 9, 0, 5)
    model.joiner.output.bias[model.blank] = -1e3
    found = beam_search(model, encoded, lengths, beam_size=3)
    assert [h[0].frames for h in found] == [list(range(n)) for n in lengths]
    model.joiner.output.bias.fill_(math.nan)
    nothing = [Hypothesis([], [], [], -math.inf)]
    found = beam_search(model, encoded, lengths, beam_size=3)
    assert found == [nothing, [Hypothesis([], [], [], 0.0)], nothing]


@torch.no_grad()
@pytest.mark.parametrize("beam_size", [1, 3])
def test_searches_run_in_autocast(model, beam_size):
    encoded, lengths = frames_of(model, 9, 5)
    model.joiner.output.bias[model.blank] = -1e3
    searcher = TransducerSearcher(model, beam_size, max_symbols=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = searcher.search(encoded, lengths)
    assert [h[0].frames for h in found] == [list(range(n)) for n in lengths]


@torch.no_grad()
def test_an_utterance_reads_alone_as_in_a_padded_batch(model):
    encoded, lengths = frames_of(model, 9, 1, 6, 12)
    together = beam_search(model, encoded, lengths, beam_size=3)
    for i, n in enumerate(lengths):
        (alone,) = beam_search(model, encoded[i : i + 1, :n], n[None], beam_size=3)
        assert alone[0].tokens == together[i][0].tokens
        assert alone[0].frames == together[i][0].frames


@torch.no_grad()
def test_each_label_has_its_frame_and_log_probability(model):
    model.joiner.output.bias[model.blank] -= 4
    encoded, lengths = frames_of(model, 10)
    ((best,),) = beam_search(model, encoded, lengths, beam_size=4)
    assert len(best.tokens) > 2
    assert best.frames == sorted(set(best.frames))
    for i, (label, frame, log_prob) in enumerate(
        zip(best.tokens, best.frames, best.log_probs, strict=True)
    ):
        expected = next_log_probs(model, encoded[0, frame], best.tokens[:i])[label]
        assert log_prob == pytest.approx(expected, abs=1e-5)


def test_more_results_than_hypotheses_cannot_be_asked_for(model):
    encoded, lengths = frames_of(model, 3)
    with pytest.raises(ValueError, match=r"nbest \(3\)"):
        beam_search(model, encoded, lengths, beam_size=2, nbest=3)


@torch.no_grad()
def test_the_searcher_returns_what_speechbrains_does(model):
    encoded, lengths = frames_of(model, 8, 5)
    encoded[1, 5:] = 0
    encoded = encoded[:, :8]
    best, score, nbest, nbest_scores = TransducerSearcher(model, beam_size=3, nbest=2)(encoded)
    expected = beam_search(model, encoded, lengths, 3, 2, max_symbols=5)
    assert nbest == [[h.tokens for h in hypotheses] for hypotheses in expected]
    assert nbest_scores == [[h.score for h in hypotheses] for hypotheses in expected]
    assert best == [row[0] for row in nbest]
    mean = sum(math.exp(row[0]) for row in nbest_scores) / 2
    assert float(score) == pytest.approx(mean, rel=1e-5)
    greedy, _, none, scores = TransducerSearcher(model)(encoded)
    assert greedy == [h.tokens for h in greedy_search(model, encoded, lengths)]
    assert none is None
    assert scores is None
