"""Error rates of the dev set against cut-out subnets that read each utterance alone."""

import random

import pytest
import torch

from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.search.dev_set import DevSet, Utterances, speech
from todm_sb.supernet import SearchSpace, extract_subnet
from todm_sb.utils.errors import DataError

SPACE = SearchSpace(4, 1, ffn_dims=(3, 7, 12))
LENGTHS = [[61, 30, 7], [120, 119], [64, 64, 50]]


def utterances(seed=0):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    return [
        Utterances(
            torch.randn(len(lengths), max(lengths), 6),
            torch.tensor(lengths),
            [[rng.choice("abcdef") for _ in range(rng.randint(1, 5))] for _ in lengths],
        )
        for lengths in LENGTHS
    ]


def words_of(ids):
    return ["?abcdef"[i] for i in ids]


def edits(read, said):
    """Levenshtein distance, by its definition."""
    if not read or not said:
        return len(read) + len(said)
    return min(
        edits(read[:-1], said) + 1,
        edits(read, said[:-1]) + 1,
        edits(read[:-1], said[:-1]) + (read[-1] != said[-1]),
    )


@torch.no_grad()
def slow_error_rate(network, batches):
    n_edits = n_words = 0
    for batch in batches:
        for features, n, said in zip(batch.features, batch.n_features, batch.words, strict=True):
            encoded, n_frames = network.encoder(features[None, :n], n[None])
            (hypothesis,) = greedy_search(network, encoded, n_frames, max_symbols=1)
            n_edits += edits(words_of(hypothesis.tokens)[:8], said)
            n_words += len(said)
    return 100 * n_edits / n_words


@pytest.mark.parametrize("causal", [False, True])
def test_every_subnet_has_the_error_rate_of_the_network_cut_out(make_transducer, causal):
    supernet = make_transducer(causal=causal)
    with torch.no_grad():
        supernet.joiner.output.bias[0] -= 3.0
    batches = utterances()
    # The slow distance takes exponential time: both read eight words at most.
    searcher = TransducerSearcher(supernet, max_symbols=1)
    dev_set = DevSet(supernet, batches, lambda ids: words_of(ids)[:8], searcher)
    rng = random.Random(1)
    rates = set()
    for config in [SPACE.max, SPACE.min, SPACE.random(rng), SPACE.random(rng)]:
        rates.add(dev_set.error_rate(config))
        assert dev_set.error_rate(config) == pytest.approx(
            slow_error_rate(extract_subnet(supernet, config), batches)
        )
    assert len(rates) > 1


def test_the_trunk_is_computed_once(make_transducer, monkeypatch):
    supernet = make_transducer()
    calls = []
    for name in ("subsampling.forward", "shared"):
        owner, _, method = name.rpartition(".")
        module = supernet.encoder.get_submodule(owner)
        original = getattr(module, method)
        monkeypatch.setattr(
            module, method, lambda *a, name=name, f=original: calls.append(name) or f(*a)
        )
    dev_set = DevSet(supernet, utterances(), words_of)
    made = list(calls)
    assert made.count("subsampling.forward") == len(LENGTHS)
    for config in (SPACE.max, SPACE.min):
        dev_set.error_rate(config)
    assert calls == made


@pytest.mark.parametrize("n", [5, 98, 99, 1000])
def test_speech_is_the_utterances_one_after_another_without_their_padding(n):
    batches = utterances()
    rows = [
        batch.features[i, :length]
        for batch in batches
        for i, length in enumerate(batch.n_features.tolist())
    ]
    everything = torch.cat(rows * 3)
    assert torch.equal(speech(iter(batches), n)[0], everything[:n])


def test_what_cannot_be_decoded_counts_as_deleted(make_transducer):
    supernet, batches = make_transducer(), utterances()
    lost = Utterances(
        torch.empty(0, 0, 6), torch.empty(0, dtype=torch.long), [], [["a"], ["b"] * 9]
    )
    sound, all_of_them = (DevSet(supernet, x, words_of) for x in (batches, [*batches, lost]))
    n = sound.scored["words"]
    assert all_of_them.scored == {"utterances": 10, "words": n + 10, "undecodable": 2}
    expected = (sound.error_rate(SPACE.max) * n + 100 * 10) / (n + 10)
    assert all_of_them.error_rate(SPACE.max) == pytest.approx(expected)
    assert speech([lost, *batches], 50).shape == (1, 50, 6)
    with pytest.raises(DataError, match="nothing to measure time on"):
        speech([lost], 50)
