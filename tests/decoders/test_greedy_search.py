import itertools

import pytest
import torch

from todm_sb.decoders.greedy import GreedyState, greedy_chunk, greedy_search
from todm_sb.decoders.greedy_alone import FIRST_FRAMES
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.networks import TransducerNetworks
from todm_sb.decoders.transducer import TransducerSearcher, padded_lengths

# Longer than what a search may look at together.
LONG = 40
KINDS = ["lstm", "stateless"]
SEEDS = range(8)


def make_reader(make_transducer, kind, seed):
    """A network that emits where its encoder is loud, and reads blanks where it is silent."""
    model = make_transducer(kind, seed=seed)
    with torch.no_grad():
        model.joiner.project_encoder.weight.mul_(3)
        model.joiner.project_predictor.weight.mul_(3)
        model.joiner.output.weight.mul_(2)
        model.joiner.output.weight[0].zero_()
        model.joiner.output.bias.zero_()
        model.joiner.output.bias[0] = 4
    return model


def make_encoded(seed):
    """Four utterances with a silence, and with anything at all in their padding."""
    generator = torch.Generator().manual_seed(100 + seed)
    encoded = 4 * torch.randn(4, 90, 8, generator=generator)
    encoded[:, 20 : 20 + LONG] *= 0.02
    return encoded, torch.tensor([90, 67, 3, 25])


@torch.no_grad()
def read_one(model, encoded, max_symbols):
    """Frame by frame: labels until blank, or until there are enough of them."""
    joiner = model.joiner
    output, state = model.predictor(torch.tensor([[0]]))
    tokens, frames, log_probs = [], [], []
    for t in range(len(encoded)):
        for _ in range(max_symbols):
            joint = torch.tanh(
                joiner.project_encoder.weight @ encoded[t]
                + joiner.project_encoder.bias
                + joiner.project_predictor.weight @ output[0, 0]
            )
            logits = (joiner.output.weight @ joint + joiner.output.bias).double()
            token = logits.argmax().item()
            if token == 0:
                break
            tokens.append(token)
            frames.append(t)
            log_probs.append((logits[token] - logits.exp().sum().log()).item())
            output, state = model.predictor(torch.tensor([[token]]), state)
    return Hypothesis(tokens, frames, log_probs)


def search(model, encoded, n_frames, max_symbols):
    return greedy_search(model=model, encoded=encoded, n_frames=n_frames, max_symbols=max_symbols)


def labels_a_frame(hypothesis):
    return [hypothesis.frames.count(t) for t in sorted(set(hypothesis.frames))]


def same(got, expected):
    assert got.tokens == expected.tokens
    assert got.frames == expected.frames
    assert got.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_symbols", [1, 3, 5])
def test_the_search_takes_the_best_symbol_at_each_node(make_transducer, kind, max_symbols):
    counts, silences = [], []
    for seed in SEEDS:
        model = make_reader(make_transducer, kind, seed)
        encoded, n_frames = make_encoded(seed)
        hypotheses = search(model, encoded, n_frames, max_symbols)
        assert len(hypotheses) == 4
        for row, hypothesis in enumerate(hypotheses):
            same(hypothesis, read_one(model, encoded[row, : n_frames[row]], max_symbols))
            counts += labels_a_frame(hypothesis)
            edges = [-1, *hypothesis.frames, n_frames[row].item()]
            silences += [b - a - 1 for a, b in itertools.pairwise(edges)]
    # The cases that a search can get wrong did occur.
    assert max(counts) == max_symbols
    assert max_symbols == 1 or min(counts) < max_symbols
    assert max(silences) >= LONG
    assert any(0 < silence < 10 for silence in silences)


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_reads_the_same_alone_and_in_a_padded_batch(make_transducer, kind):
    for seed in SEEDS:
        model = make_reader(make_transducer, kind, seed)
        encoded, n_frames = make_encoded(seed)
        together = search(model, encoded, n_frames, 5)
        for row in range(4):
            n = n_frames[row : row + 1]
            (alone,) = search(model, encoded[row : row + 1, : n.item()], n, 5)
            same(together[row], alone)


@pytest.mark.parametrize("max_symbols", [1, 3])
def test_an_utterance_alone_is_read_node_by_node_in_chunks_too(make_transducer, max_symbols):
    model = make_reader(make_transducer, "lstm", 3)
    encoded, n_frames = make_encoded(3)
    for row in range(4):
        state, found = GreedyState.initial(model, 1), Hypothesis([], [], [])
        frames = encoded[row, : n_frames[row]]
        for chunk in (frames[:2], frames[2:2], frames[2:]):
            # What follows a stream's end is anything.
            padded = torch.cat([chunk, torch.full((3, 8), float("nan"))]).unsqueeze(0)
            n_new = torch.tensor([len(chunk)])
            (part,), state = greedy_chunk(model, padded, n_new, state, max_symbols)
            for whole, new in zip(
                (found.tokens, found.frames, found.log_probs),
                (part.tokens, part.frames, part.log_probs),
                strict=True,
            ):
                whole.extend(new)
        same(found, read_one(model, frames, max_symbols))
        assert state.n_frames.tolist() == [len(frames)]


class Turns(TransducerNetworks):
    """Takes down how many frames are looked at in each turn; blank may be another label."""

    def __init__(self, model, blank=0):
        super().__init__(model)
        self.frames, self._blank = [], blank

    @property
    def blank(self):
        return self._blank

    def join(self, encoder, predictor):
        self.frames.append(encoder.shape[1])
        return super().join(encoder, predictor)


def test_turns_grow_with_labels_and_not_with_silence(make_transducer):
    model = make_reader(make_transducer, "lstm", 0)
    turns = Turns(model)
    silence = torch.zeros(1, 1000, 8)
    (found,) = search(turns, silence, torch.tensor([1000]), 5)
    assert found.tokens == []
    assert (len(turns.frames), sum(turns.frames)) == (11, 1000)
    encoded, _ = make_encoded(0)
    turns.frames.clear()
    (found,) = search(turns, encoded[:1], torch.tensor([90]), 5)
    assert 0 < len(turns.frames) <= len(found.tokens) + 90 / FIRST_FRAMES + 1


def test_blank_may_be_any_label_and_wins_where_it_is_as_good(make_transducer):
    model = make_transducer("stateless")
    with torch.no_grad():
        model.joiner.output.weight.zero_()
        model.joiner.output.bias.fill_(-1)
        model.joiner.output.bias[[1, 3]] = 0
    encoded = torch.randn(2, 4, 8)
    for batch in (encoded, encoded[:1]):
        n_frames = torch.full((len(batch),), 4)
        for blank, token in ((3, []), (2, [1, 1, 1, 1])):
            networks = Turns(model, blank)
            assert [h.tokens for h in search(networks, batch, n_frames, 1)] == [token] * len(batch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[1] * 90, [40, 0, 7, 43], [89, 1]])
def test_any_chunking_finds_the_same_labels(make_transducer, kind, sizes):
    for seed in SEEDS:
        model = make_reader(make_transducer, kind, seed)
        encoded, n_frames = make_encoded(seed)
        state, begin = GreedyState.initial(model, 4), 0
        found = [Hypothesis([], [], []) for _ in range(4)]
        for chunk in encoded.split(sizes, dim=1):
            n_new = (n_frames - begin).clamp(0, chunk.shape[1])
            hypotheses, state = greedy_chunk(model, chunk, n_new, state, 3)
            begin += chunk.shape[1]
            for whole, part in zip(found, hypotheses, strict=True):
                whole.tokens.extend(part.tokens)
                whole.frames.extend(part.frames)
                whole.log_probs.extend(part.log_probs)
        for row, n in enumerate(n_frames):
            same(found[row], read_one(model, encoded[row, :n], 3))


def test_what_lies_in_the_padding_is_never_read(make_transducer):
    model = make_reader(make_transducer, "lstm", 0)
    encoded, n_frames = make_encoded(0)
    expected = search(model, encoded, n_frames, 5)
    for row, n in enumerate(n_frames):
        encoded[row, n:] = float("nan")
    for got, exact in zip(search(model, encoded, n_frames, 5), expected, strict=True):
        same(got, exact)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_reads_as_nothing(make_transducer, kind):
    model = make_reader(make_transducer, kind, 0)
    with torch.no_grad():
        model.joiner.output.bias[0] = 1e3
    encoded, n_frames = make_encoded(0)
    assert search(model, encoded, n_frames, 5) == [Hypothesis([], [], [])] * 4


def test_a_network_without_blanks_is_stopped_at_each_frame(make_transducer):
    model = make_reader(make_transducer, "lstm", 0)
    with torch.no_grad():
        model.joiner.output.bias[0] = -1e3
    encoded, n_frames = make_encoded(0)
    for hypothesis, n in zip(search(model, encoded, n_frames, 3), n_frames.tolist(), strict=True):
        assert hypothesis.frames == [t for t in range(n) for _ in range(3)]
        assert 0 not in hypothesis.tokens


def test_blank_is_never_emitted_as_a_label_however_close(make_transducer):
    model = make_transducer("lstm")
    with torch.no_grad():
        model.joiner.output.weight.zero_()
        model.joiner.output.bias.fill_(-1)
        model.joiner.output.bias[0] = 0
        model.joiner.output.bias[4] = 1e-9
    (hypothesis,) = search(model, torch.randn(1, 2, 8), torch.tensor([2]), 2)
    assert hypothesis.tokens == [4, 4, 4, 4]


def test_the_searcher_answers_in_speechbrains_shape(make_transducer):
    model = make_reader(make_transducer, "lstm", 1)
    encoded, n_frames = make_encoded(1)
    for row, n in enumerate(n_frames):
        encoded[row, n:] = 0
    expected = [read_one(model, encoded[i, : n_frames[i]], 3) for i in range(4)]

    searcher = TransducerSearcher(model=model, max_symbols=3)
    for wav_lens in (None, n_frames / 90):
        tokens, score, n_best, n_best_scores = searcher(encoded, wav_lens)
        assert tokens == [hypothesis.tokens for hypothesis in expected]
        assert all(type(token) is int for row in tokens for token in row)
        joint = [torch.tensor(h.log_probs).sum().exp().item() for h in expected]
        assert score.item() == pytest.approx(sum(joint) / 4, rel=1e-4)
        assert n_best is None
        assert n_best_scores is None


def test_the_searcher_reads_the_encoders_own_output(make_transducer):
    model = make_reader(make_transducer, "stateless", 2)
    with torch.no_grad():
        model.joiner.output.bias[0] = 1
    features, lengths = 3 * torch.randn(2, 60, 6), torch.tensor([60, 31])
    with torch.no_grad():
        encoded, n_frames = model.encoder(features, lengths)
    expected = [read_one(model, encoded[i, : n_frames[i]], 5).tokens for i in range(2)]
    assert sum(map(len, expected)) > 0
    tokens, *_ = TransducerSearcher(model=model)(encoded, lengths / 60)
    assert tokens == expected


def test_lengths_are_those_of_the_frames_that_are_not_zero():
    encoded = torch.ones(4, 10, 3)
    encoded[1, 7:] = 0
    encoded[1, 3] = 0  # silence within an utterance is no padding
    encoded[2, 1:] = 0
    encoded[2, 0, :2] = 0
    encoded[3] = 0
    assert padded_lengths(encoded).tolist() == [10, 7, 1, 0]


def test_fractions_only_ever_shorten_and_never_below_the_true_length():
    for T in range(1, 200, 7):
        for n in range(1, T + 1):
            encoded = torch.ones(1, T, 1)
            encoded[:, n:] = 0
            assert padded_lengths(encoded, torch.tensor([n / T])).item() == n
    unpadded = torch.ones(2, 100, 1)
    assert padded_lengths(unpadded, torch.tensor([1.0, 0.5])).tolist() == [100, 50]
    assert padded_lengths(unpadded, torch.tensor([1, 0])).tolist() == [100, 0]


def test_a_frame_that_the_fraction_covers_in_part_counts():
    for T in range(1, 2000, 37):
        n_frames = torch.arange(1, T + 1)
        unpadded = torch.ones(T, T, 1)
        assert torch.equal(padded_lengths(unpadded, n_frames / T), n_frames)
        assert torch.equal(padded_lengths(unpadded, (n_frames - 0.9) / T), n_frames)
    # 0.2 s beside 15 s: 5 frames and a sample.
    assert padded_lengths(torch.ones(1, 375, 1), torch.tensor([3200 / 239999])).item() == 6
