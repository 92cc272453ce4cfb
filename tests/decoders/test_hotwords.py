"""Hot words against phrases that are looked for at every place of a label sequence."""

import functools
import random

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from test_beam_search import assert_all_get, frames_of

from todm_sb.decoders.beam import beam_search
from todm_sb.decoders.hotword_file import BOOST, hotword_graph, read_hotwords
from todm_sb.decoders.hotwords import HotwordGraph
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.utils.errors import ConfigError

BLANK, VOCAB_SIZE = 0, 6


def boosts_in(labels, phrases, begins):
    """What the phrases in a label sequence bring, each place by itself."""
    return sum(
        boost * len(phrase)
        for phrase, boost in phrases.items()
        for start in range(len(labels) - len(phrase) + 1)
        if tuple(labels[start : start + len(phrase)]) == phrase
        and (start + len(phrase) == len(labels) or begins[labels[start + len(phrase)]])
    )


def random_phrases(rng, n):
    return {
        tuple(rng.choices(range(1, VOCAB_SIZE), k=rng.randint(1, 5))): rng.choice([0.5, 1.5, 3.0])
        for _ in range(n)
    }


def walk(graph, sequences):
    """Scores of label sequences of one length, label by label and then at their ends."""
    sequences = torch.tensor(sequences)
    gains, state = graph.predict(torch.full((len(sequences),), BLANK))
    total = torch.zeros(len(sequences))
    for labels in sequences.T:
        assert not gains[:, BLANK].any()
        total = total + gains.gather(1, labels.unsqueeze(1)).squeeze(1)
        gains, state = graph.predict(labels, state)
    return total, total + graph.final(state)


@pytest.mark.parametrize("seed", range(8))
def test_a_sequence_scores_what_the_phrases_in_it_bring(seed):
    rng = random.Random(seed)
    begins = [rng.random() < 0.6 for _ in range(VOCAB_SIZE)]
    phrases = random_phrases(rng, 8)
    graph = HotwordGraph(phrases, begins, BLANK)
    sequences = [rng.choices(range(1, VOCAB_SIZE), k=30) for _ in range(200)]
    _, found = walk(graph, sequences)
    expected = [boosts_in(labels, phrases, begins) for labels in sequences]
    assert len(set(expected)) > 3
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


def test_a_phrase_is_helped_before_it_is_complete_and_pays_back_what_comes_to_nothing():
    graph = HotwordGraph({(1, 2, 3): 2.0}, [True] * VOCAB_SIZE, BLANK)
    advanced, final = walk(graph, [[1, 2], [2, 1], [4, 5]])
    assert advanced.tolist() == [4.0, 2.0, 0.0]
    assert final.tolist() == [0.0, 0.0, 0.0]
    advanced, final = walk(graph, [[1, 2, 3, 4], [1, 2, 4, 5], [1, 1, 2, 3]])
    assert final.tolist() == [6.0, 0.0, 6.0]


def test_a_label_is_advanced_once_by_the_largest_boost_of_what_it_may_become():
    phrases = {(1, 2): 1.0, (1, 2, 3): 2.0, (1, 2, 3, 4): 1.0, (1, 5): -1.0, (4,): 0.5}
    graph = HotwordGraph(phrases, [True] * VOCAB_SIZE, BLANK)
    begins = [([1], 2.0), ([1, 2], 4.0), ([1, 5], -2.0), ([1, 2, 3], 2.0 + 6.0)]
    assert [(labels, walk(graph, [labels])[0].item()) for labels, _ in begins] == begins
    advanced, final = walk(graph, [[1, 2, 3, 4]])
    assert advanced.tolist() == final.tolist() == [2.0 + 6.0 + 4.0 + 0.5]


@torch.no_grad()
@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
def test_a_beam_that_holds_everything_adds_the_boosts_to_all(make_transducer, predictor):
    model = make_transducer(predictor=predictor, vocab_size=4, seed=3)
    phrases, begins = {(1, 2): 1.5, (2,): -1.0, (3, 3, 1): 2.0}, [False, True, False, True]
    graph = HotwordGraph(phrases, begins, model.blank)
    gain = functools.partial(boosts_in, phrases=phrases, begins=begins)
    assert_all_get(gain, model, *frames_of(model, 4, 3, 0), graph)


@torch.no_grad()
def test_hot_words_change_what_is_found_and_only_where_they_are(make_transducer):
    model = make_transducer(vocab_size=6, seed=1)
    model.joiner.output.bias[model.blank] -= 2
    encoded, lengths = frames_of(model, 8, 8, 8)
    (plain,), *_ = beam_search(model, encoded, lengths, beam_size=8)
    wanted = tuple(label % 5 + 1 for label in plain.tokens[:3])
    graph = HotwordGraph({wanted: 20.0}, [True] * 6, model.blank)
    (found,), *_ = TransducerSearcher(model, 8, 1, fusions=[graph]).search(encoded, lengths)
    assert wanted not in {tuple(plain.tokens[i : i + 3]) for i in range(8)}
    assert wanted in {tuple(found.tokens[i : i + 3]) for i in range(8)}
    unheard = HotwordGraph({(1,) * 9: 0.1}, [True] * 6, model.blank)
    (same,), *_ = TransducerSearcher(model, 8, 1, fusions=[unheard]).search(encoded, lengths)
    assert same.tokens == plain.tokens


def test_greedy_search_refuses_hot_words(make_transducer):
    graph = HotwordGraph({(1,): 1.0}, [True] * 7)
    with pytest.raises(ConfigError, match="beam_size >= 2"):
        TransducerSearcher(make_transducer(), fusions=[graph])
    assert TransducerSearcher(make_transducer(), 4, fusions=[graph]).greedy().fusions == ()


@pytest.fixture
def tokenizer(char_tokenizer_path):
    return SentencePieceProcessor(model_file=str(char_tokenizer_path))


def test_a_list_has_a_phrase_a_line_and_boosts(tmp_path):
    path = tmp_path / "hot.txt"
    path.write_text("\ufeffNINE SIX\n\n# names\nONE :2.5\nTWO : TWO\n", encoding="utf-8")
    assert read_hotwords(path) == {"NINE SIX": BOOST, "ONE": 2.5, "TWO : TWO": BOOST}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists no hot word"),
        (b"ONE :much\n", "line 1: the boost 'much' is no number"),
        (b"TWO\nONE :inf\n", "line 2: the boost 'inf' is no number"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_list_that_is_none_is_one_line(tmp_path, content, message):
    path = tmp_path / "hot.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_hotwords(path)


def test_phrases_are_found_as_whole_words_of_a_tokenizer(tokenizer):
    graph = hotword_graph({"ONE": 1.0}, tokenizer)

    def score(text):
        return walk(graph, [tokenizer.encode_as_ids(text)])[1].item()

    one = score("ONE")
    assert one == len(tokenizer.encode_as_ids("ONE"))
    assert score("SIX ONE") == score("ONE SIX") == one
    assert score("ONE ONE") == 2 * one
    assert score("ONES") == score("SONE") == score("ON") == 0


@pytest.mark.parametrize(
    ("phrase", "message"), [("one", "in training, 'ONE'"), ("ÖNE", "spell it otherwise")]
)
def test_a_phrase_that_can_never_be_said_is_refused(tokenizer, phrase, message):
    with pytest.raises(ConfigError, match=message):
        hotword_graph({phrase: 1.0}, tokenizer)


def test_phrases_of_scripts_without_spaces_are_found_within_a_text(tmp_path):
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(["我要去北京", "北京在哪里", "今天天气好"]),
        model_prefix=str(tmp_path / "han"),
        model_type="char",
        bos_id=-1,
        eos_id=-1,
        character_coverage=1.0,
        vocab_size=15,
    )
    tokenizer = SentencePieceProcessor(model_file=str(tmp_path / "han.model"))
    graph = hotword_graph({"北京": 1.0}, tokenizer)
    _, scores = walk(graph, [tokenizer.encode_as_ids(x) for x in ("我要去北京", "今天天气好")])
    assert scores.tolist() == [2.0, 0.0]
