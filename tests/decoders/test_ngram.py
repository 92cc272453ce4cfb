"""n-gram models against Katz's formula, as it is written, and all sentences of a small beam."""

import copy
import gzip
import itertools
import math
import random
import re

import pytest
import torch
from sentencepiece import SentencePieceProcessor
from test_beam_search import assert_all_get, frames_of

from todm_sb.decoders.ngram import read_arpa
from todm_sb.decoders.ngram_fusion import PieceNGramFusion, WordNGramFusion, ngram_fusion
from todm_sb.utils.errors import ConfigError

WORDS = ["<unk>", "<s>", "</s>", "A", "B", "C"]


@pytest.fixture(scope="module")
def ngrams():
    """A listed log-probability (base 10) and weight for some of all 1- to 3-grams."""
    rng = random.Random(0)
    found = {}
    for order in (1, 2, 3):
        for words in itertools.product(WORDS, repeat=order):
            if order == 1 or (rng.random() < 0.4 and words[:-1] in found):
                found[words] = (-rng.uniform(0.1, 4), -rng.uniform(0, 1) if order < 3 else None)
    return found


def arpa_text(ngrams, separator="\t"):
    text = "made by hand\n\\data\\\n"
    for order in (1, 2, 3):
        text += f"\n\\{order}-grams:\n"
        for words, (log_prob, backoff) in ngrams.items():
            if len(words) == order:
                weight = "" if backoff is None else f"{separator}{backoff}"
                text += f"{log_prob}{separator}{' '.join(words)}{weight}\n"
    return text + "\n\\end\\\n"


def listed(words):
    return tuple(word if word in WORDS else "<unk>" for word in words)


def katz(ngrams, history, word):
    """Base 10, as in the textbook, of words that are listed."""
    if (*history, word) in ngrams:
        return ngrams[(*history, word)][0]
    weight = ngrams[history][1] if history in ngrams else 0.0
    return weight + katz(ngrams, history[1:], word)


@pytest.fixture(params=["plain", "gzip", "spaces"])
def path(request, ngrams, tmp_path):
    text = arpa_text(ngrams, " " if request.param == "spaces" else "\t")
    data = text.encode()
    path = tmp_path / "lm.arpa"
    path.write_bytes(gzip.compress(data, mtime=0) if request.param == "gzip" else data)
    return path


def test_a_model_is_katzs_formula(ngrams, path):
    model = read_arpa(path)
    assert model.order == 3
    assert model.words == ["A", "B", "C"]
    for *history, word in itertools.product([*WORDS, "NEVER"], repeat=4):
        context = model.context(tuple(history))
        assert context == listed(history[1:])
        expected = math.log(10) * katz(ngrams, context, *listed([word]))
        assert model.log_prob(context, word) == pytest.approx(expected, abs=1e-9)


def sentence_score(ngrams, words):
    """Natural logarithm of a sentence's probability, its end among it."""
    history, total = ("<s>",), 0.0
    for word in (*listed(words), "</s>"):
        total += katz(ngrams, history[-2:], word)
        history += (word,)
    return math.log(10) * total


@torch.no_grad()
def test_a_beam_that_holds_everything_adds_a_model_of_pieces_to_all(make_transducer, ngrams, path):
    model = make_transducer(vocab_size=4, seed=3)
    pieces, weight = [" ", "A", "B", "NEVER"], 0.4
    fusion = PieceNGramFusion(read_arpa(path), pieces, weight)

    def gain(labels):
        return weight * sentence_score(ngrams, [pieces[v] for v in labels])

    for lengths in ((4, 2), (3, 3)):  # it begins anew
        assert_all_get(gain, model, *frames_of(model, *lengths), fusion)


@torch.no_grad()
def test_a_beam_that_holds_everything_adds_a_model_of_words_to_all(make_transducer, ngrams, path):
    model = make_transducer(vocab_size=4, seed=3)
    pieces, weight = [" ", "\u2581A", "\u2581", "B"], 0.4
    fusion = WordNGramFusion(read_arpa(path), pieces, weight)

    def gain(labels):
        words = "".join(pieces[v] for v in labels).replace("\u2581", " ").split()
        return weight * sentence_score(ngrams, words)

    assert_all_get(gain, model, *frames_of(model, 4, 3), fusion)


@torch.no_grad()
def test_each_character_of_a_wide_script_is_a_word(make_transducer, ngrams, tmp_path):
    """Whatever the pieces are that it is in: one of its own, with a space, with others."""
    wide = dict(zip("ABC", "\u4f60\u597d\u754c", strict=True))
    of_characters = {tuple(wide.get(w, w) for w in words): x for words, x in ngrams.items()}
    path = tmp_path / "characters.arpa"
    path.write_text(arpa_text(of_characters), encoding="utf-8")
    model = make_transducer(vocab_size=4, seed=3)
    spelt = [" ", "\u2581A", "BC", "OK"]
    pieces, weight = ["".join(wide.get(c, c) for c in piece) for piece in spelt], 0.4
    fusion = WordNGramFusion(read_arpa(path), pieces, weight)

    def gain(labels):
        text = "".join(spelt[v] for v in labels).replace("\u2581", " ")
        return weight * sentence_score(ngrams, re.findall("[ABC]|(?:OK)+", text))

    assert_all_get(gain, model, *frames_of(model, 4, 3), fusion)


def arpa_of_words(tmp_path, words):
    path = tmp_path / "words.arpa"
    unigrams = "".join(f"-1.5\t{word}\n" for word in ["</s>", *words])
    path.write_text(f"\\data\\\n\\1-grams:\n{unigrams}\\end\\\n", encoding="utf-8")
    return read_arpa(path)


def test_a_fusion_that_was_copied_begins_anew(ngrams, path):
    model = read_arpa(path)
    pieces = ["<blk>", *sorted({f"\u2581{word}" for word in model.following[()]})]
    fusion = WordNGramFusion(model, pieces, 0.5)
    start = torch.tensor([0])
    before, state = fusion.predict(start)
    copied = copy.deepcopy(fusion)
    assert torch.equal(copied.predict(start)[0], before)
    assert torch.equal(fusion.predict(start, state)[0], copied.predict(start, state)[0])


def test_a_model_is_told_to_be_of_pieces_or_of_words(tmp_path, char_tokenizer_path):
    tokenizer = SentencePieceProcessor(model_file=str(char_tokenizer_path))
    for units in (["\u2581", "O", "N", "E"], ["O", "N"], ["\u2581", "O", "\u017d"]):
        pieces = arpa_of_words(tmp_path, units)
        assert isinstance(ngram_fusion(pieces, tokenizer, 0.3), PieceNGramFusion)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_a_model_of_words_is_spelt_as_in_training(tmp_path, kind, request):
    path = request.getfixturevalue(f"{kind}_tokenizer_path")
    tokenizer = SentencePieceProcessor(model_file=str(path))
    words = arpa_of_words(tmp_path, ["ONE", "TWO"])
    assert isinstance(ngram_fusion(words, tokenizer, 0.3), WordNGramFusion)
    with pytest.raises(ConfigError, match=r"such as 'one', are not spelt .*letter case"):
        ngram_fusion(arpa_of_words(tmp_path, ["one", "two"]), tokenizer, 0.3)


def test_words_of_rare_capitals_are_of_a_tokenizer_of_both_cases(tmp_path, cased_tokenizer_path):
    tokenizer = SentencePieceProcessor(model_file=str(cased_tokenizer_path))
    words = arpa_of_words(tmp_path, ["Quelle", "Qual", "Baum"])
    assert isinstance(ngram_fusion(words, tokenizer, 0.3), WordNGramFusion)


def test_a_model_of_characters_is_of_words(tmp_path, wide_tokenizer_path):
    characters = ["\u4f60", "\u597d", "\u754c"]
    tokenizer = SentencePieceProcessor(model_file=str(wide_tokenizer_path))
    words = arpa_of_words(tmp_path, characters)
    assert isinstance(ngram_fusion(words, tokenizer, 0.3), WordNGramFusion)
    pieces = arpa_of_words(tmp_path, ["\u2581", *characters])
    assert isinstance(ngram_fusion(pieces, tokenizer, 0.3), PieceNGramFusion)
    several = arpa_of_words(tmp_path, ["".join(characters[:2]), "".join(characters[1:])])
    with pytest.raises(ConfigError, match="Chinese and Japanese: a space after each character"):
        ngram_fusion(several, tokenizer, 0.3)


def test_bytes_are_units_of_a_model_of_pieces(tmp_path, byte_tokenizer_path):
    tokenizer = SentencePieceProcessor(model_file=str(byte_tokenizer_path))
    path = tmp_path / "bytes.arpa"
    path.write_text("\\1-grams:\n-2 </s>\n-2 E\n-1 <0x5A>\n-1 <0xC5>\n\\end\\\n")
    fusion = ngram_fusion(read_arpa(path), tokenizer, 1.0)
    gains, _ = fusion.predict(torch.zeros(1, dtype=torch.long))
    labels = [tokenizer.piece_to_id(x) for x in ("E", "<0x5A>", "<0xC5>", "<0xC4>")]
    found = gains[0, labels] / math.log(10)
    assert found.tolist() == pytest.approx([-2, -1, -1, -2])


def test_unk_stands_for_words_that_are_not_listed_after_others_and_before(tmp_path):
    path = tmp_path / "unk.arpa"
    path.write_text(
        "\\1-grams:\n-3 <unk> -0.1\n-1 THE -0.5\n-1 </s>\n-1 <s> -0.2\n-1 CAT -0.1\n"
        "\\2-grams:\n-0.3 THE <unk>\n-0.2 <unk> CAT\n\\end\\\n"
    )
    model = read_arpa(path)
    for history, word, expected in (
        ("THE", "XYZ", -0.3),
        ("XYZ", "CAT", -0.2),
        ("XYZ", "THE", -0.1 - 1),
        ("CAT", "XYZ", -0.1 - 3),
    ):
        found = model.log_prob((history,), word) / math.log(10)
        assert found == pytest.approx(expected)
    fusion = PieceNGramFusion(model, [" ", "THE", "XYZ", "CAT"], math.log10(math.e))
    _, state = fusion.predict(torch.zeros(2, dtype=torch.long))
    gains, _ = fusion.predict(torch.tensor([1, 2]), state)
    assert gains.flatten().tolist() == pytest.approx([0, -1.5, -0.3, -1.5, 0, -1.1, -3.1, -0.2])


def test_a_word_that_is_not_known_is_as_rare_as_the_rarest_not_as_the_start(tmp_path):
    path = tmp_path / "srilm.arpa"
    path.write_text("\\1-grams:\n-1 </s>\n-99 <s> -0.3\n-0.5 A\n-2 B -0.1\n\\end\\\n")
    model = read_arpa(path)
    assert model.log_prob(("A",), "C") == model.log_prob((), "B") == -2 * math.log(10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "cannot be read"),
        (b"hello\n", r"has no \\1-grams"),
        (b"\\1-grams:\n-1 A\n", "breaks off"),
        (b"\\1-grams:\n-1 A\n\\" + b"9" * 5000 + b"-grams:\n\\end\\\n", "is no 1-gram"),
        (b"\\1-grams:\nmany A\n\\end\\\n", "line 2: 'many A' is no 1-gram"),
        (b"\\1-grams:\n-inf A\n\\end\\\n", "line 2: '-inf A' is no 1-gram"),
        (b"\\1-grams:\n-1 A 0 0\n\\end\\\n", "line 2: '-1 A 0 0' is no 1-gram"),
        (b"\\1-grams:\n-1 \xff\n\\end\\\n", "not UTF-8"),
        (b"\\1-grams:\n-1 </s>\n-99 <s>\n\\end\\\n", "lists no word"),
        (gzip.compress(b"x" * 5000, mtime=0)[:30], "damaged"),
    ],
)
def test_a_file_that_is_no_model_is_one_line(tmp_path, data, message):
    path = tmp_path / "lm.arpa"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        read_arpa(path)
    assert str(path) in str(caught.value)
