"""Hot words against phrases that are looked for at every place of a label sequence."""

import functools
import itertools
import random

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from speechbrain.utils.edit_distance import wer_details_for_batch
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
        (b"ONE :-1e308\n", "line 1: the boost '-1e308' is no number up to 10000"),
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


@pytest.mark.parametrize(
    ("phrase", "message"),
    [("one", "'ONE'"), ("ONE:2", "does not know ':': with a space"), ("ONÉ", r"'.xc9': spell it")],
)
def test_a_phrase_that_cannot_be_said_is_told_why(tokenizer, phrase, message):
    with pytest.raises(ConfigError, match=message):
        hotword_graph({phrase: 1.0}, tokenizer)


def test_phrases_are_found_as_whole_words_of_a_tokenizer(tokenizer):
    graph = hotword_graph({"ONE": 1.0}, tokenizer)

    def score(text):
        return walk(graph, [tokenizer.encode_as_ids(text)])[1].item()

    one = score("ONE")
    assert one == pytest.approx(1.0)
    assert score("SIX ONE") == score("ONE SIX") == one
    assert score("ONE ONE") == pytest.approx(2 * one)
    assert score("ONES") == score("SONE") == score("ON") == 0


def test_the_boost_of_a_word_is_shared_by_its_labels(tokenizer):
    graph = hotword_graph({"SEVEN ONE": 3.0}, tokenizer)
    labels = tokenizer.encode_as_ids("SEVEN ONE")
    advanced, _ = walk(graph, [labels[:n] for n in (1,)])
    assert advanced.item() == pytest.approx(2 * 3.0 / len(labels))
    _, whole = walk(graph, [labels])
    assert whole.item() == pytest.approx(2 * 3.0)


@pytest.mark.parametrize(
    ("phrase", "message"), [("one", "in training, 'ONE'"), ("ÖNE", "spell it otherwise")]
)
def test_a_phrase_that_can_never_be_said_is_refused(tokenizer, phrase, message):
    with pytest.raises(ConfigError, match=message):
        hotword_graph({phrase: 1.0}, tokenizer)


def test_a_phrase_of_another_case_is_not_taken_for_bytes(byte_tokenizer_path):
    tokenizer = SentencePieceProcessor(model_file=str(byte_tokenizer_path))
    with pytest.raises(ConfigError, match="in training, 'ONE'"):
        hotword_graph({"One": 1.0}, tokenizer)
    hotword_graph({"ONÉ": 1.0, "北京": 1.0}, tokenizer)


@pytest.mark.parametrize("word", ["Quelle", "Q", "QUIZ"])
def test_a_tokenizer_of_both_cases_takes_rare_capitals_in_bytes_as_in_training(
    cased_tokenizer_path, word
):
    tokenizer = SentencePieceProcessor(model_file=str(cased_tokenizer_path))
    assert tokenizer.encode_as_pieces(word)[1] == "<0x51>"
    hotword_graph({word: 1.0}, tokenizer)


@pytest.fixture
def make_tokenizer(tmp_path):
    """Builds a tokenizer of the characters of some texts, or another one."""

    def make(*texts, **options):
        given = {"model_type": "char", "vocab_size": len({*"".join(texts)} - {" "}) + 2, **options}
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(tmp_path / "chars"),
            bos_id=-1,
            eos_id=-1,
            character_coverage=1.0,
            **given,
        )
        return SentencePieceProcessor(model_file=str(tmp_path / "chars.model"))

    return make


@pytest.mark.parametrize("text", ["Call Anna.", "Anna, call!", "Is Anna's?", "Is it (Joe, Anna)?"])
def test_punctuation_ends_a_word(make_tokenizer, text):
    tokenizer = make_tokenizer(text, "Annas Anna\u0308")
    graph = hotword_graph({"Anna": 2.0}, tokenizer)
    assert walk(graph, [tokenizer.encode_as_ids(text)])[1].item() == pytest.approx(2.0)
    for other in ("Annas", "Anna\u0308"):
        assert walk(graph, [tokenizer.encode_as_ids(other)])[1].item() == 0


@pytest.mark.parametrize(
    ("phrase", "text", "other"),
    [
        ("北京", "我要去北京北", "今天天气好气"),
        ("กรุงเทพ", "ฉันไปกรุงเทพวันนี้", "ฉันไปวันนี้"),
        ("ວຽງ", "ຢູ່ວຽງຈັນ", "ຢູ່ຈັນ"),
        ("ភ្នំ", "ទៅភ្នំពេញ", "ទៅពេញ"),
        ("ရန်ကုန်", "သူရန်ကုန်မှာ", "သူမှာ"),
    ],
)
def test_phrases_of_scripts_without_spaces_are_found_within_a_text(
    make_tokenizer, phrase, text, other
):
    tokenizer = make_tokenizer(phrase, text, other)
    graph = hotword_graph({phrase: 1.0}, tokenizer)
    whole, within, none = (
        walk(graph, [tokenizer.encode_as_ids(x)])[1].item() for x in (phrase, text, other)
    )
    assert whole == within == pytest.approx(2.0 if phrase == "北京" else 1.0)
    assert none == 0


@pytest.mark.parametrize(
    ("phrase", "within", "boost"), [("北京", "我在北京", 2.0), ("น้ำ", "ใจน้ำ", 1.0)]
)
def test_such_a_phrase_is_found_where_a_text_spells_it_otherwise(
    make_tokenizer, phrase, within, boost
):
    """Of pieces that only the beginning of a text has."""
    texts = ["北京大学 今天天气很好", "我在东京大学", "北京", "大学生活"]
    texts += ["สวัสดีครับ", "น้ำ ใจ น้ำใจ", "กะทิ กา กาแฟ"]
    options = {"model_type": "unigram", "vocab_size": 75, "hard_vocab_limit": False}
    tokenizer = make_tokenizer(*30 * texts, **options)
    assert len(tokenizer.encode_as_ids(phrase)) == 1
    assert len(tokenizer.encode_as_ids(within)) > 3
    graph = hotword_graph({phrase: 1.0}, tokenizer)
    for text in (phrase, within):
        assert walk(graph, [tokenizer.encode_as_ids(text)])[1].item() == pytest.approx(boost)


class Heard:
    """Networks of a transducer that only hears: each frame tells a label, under noise."""

    blank = BLANK

    def project_encoder(self, encoded):
        return encoded

    def predict(self, labels, state=None):
        return torch.zeros(len(labels), 1), (torch.zeros(len(labels), 1),)

    def join(self, encoder, predictor):
        return encoder.unsqueeze(2) + predictor.unsqueeze(1)


N_BEGINNINGS, N_OTHERS, LOUDNESS = 6, 6, 4.0
BEGINS = [0 < v <= N_BEGINNINGS for v in range(1 + N_BEGINNINGS + N_OTHERS)]


def speak(n_utterances, seed=0):
    """Utterances of five words of 40, and logits of (utterances, T, V) that are honest: the
    logarithms of what each label's probability is, given Gaussian noise, but for a constant."""
    rng = random.Random(seed)
    words = set()
    while len(words) < 40:
        rest = rng.choices(range(1 + N_BEGINNINGS, len(BEGINS)), k=rng.randint(1, 3))
        words.add((rng.randint(1, N_BEGINNINGS), *rest))
    words = sorted(words)
    said = [rng.choices(words, k=5) for _ in range(n_utterances)]
    labels = [list(itertools.chain(*utterance)) for utterance in said]
    heard = torch.randn(n_utterances, max(map(len, labels)), len(BEGINS))
    for row, own in zip(heard, labels, strict=True):
        row[range(len(own)), own] += LOUDNESS
    return words, said, LOUDNESS * heard, torch.tensor([*map(len, labels)])


def words_of(labels):
    """A word a beginning."""
    starts = [i for i, label in enumerate(labels) if i == 0 or BEGINS[label]]
    return [tuple(labels[i:j]) for i, j in itertools.pairwise([*starts, len(labels)])]


def n_errors(said, found, listed):
    """Word errors in listed words and in others: of an inserted word, by what it is."""
    spelt = [[[str(word) for word in x] for x in side] for side in (said, found)]
    aligned = wer_details_for_batch(range(len(said)), *spelt, compute_alignments=True)
    counts = {True: 0, False: 0}
    for i, details in enumerate(aligned):
        for kind, a, b in details["alignment"]:
            if kind != "=":
                counts[(found[i][b] if a is None else said[i][a]) in listed] += 1
    return counts[True], counts[False]


def test_errors_in_listed_words_fall_and_those_in_others_do_not_rise():
    words, said, logits, lengths = speak(300)

    def errors(boost):
        """Of all lists together; each is decoded with by itself."""
        counts = []
        for listed in (words[i::4] for i in range(4)):
            # As hotword_graph spreads the boost of a word.
            graph = HotwordGraph({w: boost / len(w) for w in listed}, BEGINS, BLANK)
            found = beam_search(Heard(), logits, lengths, 4, fusions=[graph])
            counts.append(n_errors(said, [words_of(h.tokens) for (h,) in found], listed))
        return tuple(map(sum, zip(*counts, strict=True)))

    listed, others = errors(0.0)
    assert listed > 50
    hot_listed, hot_others = errors(BOOST)
    assert hot_listed < 0.8 * listed
    assert hot_others <= others
    # It is the size of the boost that keeps the others from harm.
    assert errors(12.0)[1] > 1.1 * others
