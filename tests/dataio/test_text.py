"""A network that has learned its labels perfectly makes no errors, whatever the Unicode form of the
reference."""

import io
import pickle
import unicodedata
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from todm_sb.dataio.check import Limits, line_fault
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.pipeline import make_dataset
from todm_sb.dataio.text import printable, words_of_ids, words_of_text
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.evaluation import Evaluation

CORPUS = ["ÄPFEL FÜR KÖLN", "VIỆT NAM ĐƯỢC", "ONE TWO\u00ad FIX", "한국 カ゚", "größe one office"] * 3
FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
RULES = ["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf", "identity"]


def wide(letters):
    """In full width."""
    return "".join(chr(ord(letter) - ord("A") + 0xFF21) for letter in letters)


@cache
def tokenizer_of(rule="nmt_nfkc", **options):
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        normalization_rule_name=rule,
        vocab_size=400,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
        **options,
    )
    return SentencePieceProcessor(model_proto=model.getvalue())


def error_rates(tokenizer, text):
    """WER and CER of the very labels of a reference."""
    errors = ErrorRates(["oracle"])
    found = words_of_ids(tokenizer, tokenizer.encode_as_ids(text))
    errors.append("oracle", ["a"], [found], [words_of_text(tokenizer, text)])
    return errors.rates()["oracle"]


NONE = {"WER": 0, "CER": 0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        "ÄPFEL FÜR KÖLN",
        "VIỆT NAM ĐƯỢC",
        "한국",
        wide("ONE") + "\u3000" + wide("TWO"),
        "oﬃce one",  # a ligature
        "ONE\u200bTWO",
        "\ufeffONE TWO\ufeff",
        "ONE\u00a0TWO",
        "ONE TWO\u00ad FIX",
        "ONE\u2028TWO\tONE\r\nTWO",
        "  ONE   TWO ",
        "ONE\u2581TWO",
    ],
)
def test_the_labels_of_a_reference_have_no_errors(text, form):
    assert error_rates(tokenizer_of(), unicodedata.normalize(form, text)) == NONE


# Letters, marks that go with the one before, and what is written in several ways.
characters = st.one_of(
    st.characters(codec="utf-8", categories=["L", "M", "Z", "C", "P", "N"]),
    st.sampled_from("AÖé ﬁ\u0344\u0302\u0308\u0328\u200b\ufeff\u3000\u2581Ⅳ㌔ẞİ_"),
)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=80, deadline=None)
@given(text=st.text(characters, min_size=1, max_size=12))
@example("ﬁ\u0302")  # normalised once it is f, i and a circumflex; twice, f and î
def test_any_text_whose_letters_are_known_has_none_either(rule, text):
    tokenizer = tokenizer_of(rule, byte_fallback=True)
    if words_of_text(tokenizer, text):
        assert error_rates(tokenizer, text) == NONE


@pytest.mark.parametrize(
    "options",
    [
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": False},
        {"treat_whitespace_as_suffix": True},
        {"user_defined_symbols": "▁HI▁," + wide("A")},
        {"model_type": "char"},
    ],
)
def test_whatever_the_tokenizer_does_with_spaces(options):
    tokenizer = tokenizer_of(**options)
    text = f"  ONE\u3000 {wide('TWO')} ONE "
    assert words_of_text(tokenizer, text) == ["ONE", "TWO", "ONE"]
    assert error_rates(tokenizer, text) == NONE


def test_letters_that_the_tokenizer_does_not_know_are_errors():
    tokenizer = tokenizer_of()
    assert words_of_text(tokenizer, "ONE TWЖO 北京") == ["ONE", "TWЖO", "北京"]
    assert error_rates(tokenizer, "ONE 北京 TWO")["WER"] == pytest.approx(100 / 3)


def test_case_is_folded_where_the_tokenizer_folds_it():
    assert words_of_text(tokenizer_of("nmt_nfkc_cf"), "ONE Größe") == ["one", "größe"]
    assert words_of_text(tokenizer_of(), "ONE Größe") == ["ONE", "Größe"]


def test_a_space_is_no_underscore():
    errors = ErrorRates(["a"])
    errors.append("a", ["x"], [["A", "B"]], [["A_B"]])
    assert errors.rates()["a"]["CER"] == pytest.approx(100 / 3)


def test_what_is_nothing_to_the_tokenizer_is_no_transcript():
    row = {"ID": "a", "wav": "a.wav", "duration": "1", "spk_id": "s"}
    limits = Limits(tokenizer=tokenizer_of())
    for nothing in ("\u200b", "\ufeff \u2581", "\u3000"):
        assert line_fault({**row, "wrds": nothing}, limits) == ("empty transcript", "")
    assert line_fault({**row, "wrds": "\u200bONE"}, limits) is None


def test_what_validation_and_tests_count_is_normalised_on_both_sides(tmp_path, monkeypatch):
    said = [f"A\u0308PFEL {wide('FU')}\u0308{wide('R')}", "ONE\u200bTWO"]
    rows = [Row(str(i), 1.0 + i, "none.wav", "s", text) for i, text in enumerate(said)]
    write_csv(tmp_path / "a.csv", rows)
    monkeypatch.setattr("todm_sb.dataio.check.audio_fault", lambda *_: None)
    # A pipeline's tokenizer goes to the processes that load data.
    tokenizer = pickle.loads(pickle.dumps(tokenizer_of()))
    data = make_dataset(str(tmp_path / "a.csv"), tokenizer, lambda _: 100)
    with data.output_keys_as(["id", "words", "tokens"]):
        items = [data[i] for i in range(len(data))]

    class Oracle:
        def search(self, *_):
            return [[SimpleNamespace(tokens=x["tokens"].tolist())] for x in items]

    encoder = SimpleNamespace(modes=(False,), encode=lambda *_: None)
    model = SimpleNamespace(encoder=encoder)
    trunk = SimpleNamespace(frames=torch.zeros(2, 3), n_frames=None, shared=None)
    tested = Evaluation(model, {"max": (None, False)}, Oracle(), tokenizer)
    tested.add(trunk, None, [x["id"] for x in items], [x["words"] for x in items])
    assert tested.errors.rates() == {"max": NONE}
    assert tested.errors.by_utterance()["words"] == [2, 2]


def test_control_characters_are_escaped_for_a_terminal():
    assert printable("A\x1b[2J\tB\x9b\x7f ÄÖ\u2028") == "A\\x1b[2J\\x09B\\x9b\\x7f ÄÖ\u2028"
