"""Ids to text against SentencePiece's own ``decode_ids``: at once, in chunks, from tokens.txt, and
in JavaScript."""

import io
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from todm_sb.dataio.detokenizer import Detokenizer, TextState, tokens_of
from todm_sb.utils.errors import ConfigError

PAGE = Path(__file__).parents[2] / "todm_sb" / "web" / "page"
NODE = shutil.which("node")
CORPUS = ["ONE TWO THREE", "GRÜSSE AUS KÖLN", "one two ₀"] * 3

KINDS = {
    "bytes": {"byte_fallback": True},
    "bytes after begin and end": {"byte_fallback": True, "bos_id": 1, "eos_id": 2},
    # Blank is the unknown piece, but a network may have labels of any kind.
    "symbols": {
        "bos_id": 1,
        "control_symbols": ["<laugh>"],
        "user_defined_symbols": ["▁HI▁", "▁▁", "A B", "X\nY", "\n", "\x1b", "\u2028", "\x85", " "],
    },
    "unknown in the midst": {"pad_id": 0, "unk_id": 2, "bos_id": 1, "byte_fallback": True},
    "space at the end": {"treat_whitespace_as_suffix": True},
    "no space at the beginning": {"add_dummy_prefix": False},
}


@cache
def tokenizer_of(kind):
    model = io.BytesIO()
    options = {"bos_id": -1, "eos_id": -1, "vocab_size": 300, **KINDS.get(kind, {})}
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return SentencePieceProcessor(model_proto=model.getvalue())


@cache
def detokenizers(kind):
    """Of the tokenizer, and of its tokens.txt."""
    tokenizer = tokenizer_of(kind)
    return Detokenizer.of_tokenizer(tokenizer), Detokenizer.of_tokens(tokens_of(tokenizer))


def bytes_of(tokenizer, text):
    return [tokenizer.piece_to_id(f"<0x{byte:02X}>") for byte in text]


# Runs of bytes that are characters, parts of them, and none.
utf8 = st.one_of(
    st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=5),
    st.sampled_from(
        [b"\xe5\x8c", b"\xe2\x96\x81", b"\xef\xbb\xbf", b"\xed\xa0\x80", b" ", b"\x1b"]
    ),
)


def ids_of(tokenizer, drawn):
    """Label ids, from numbers and from bytes."""
    n = tokenizer.get_piece_size()
    ids = []
    for part in drawn:
        if isinstance(part, int):
            ids.append(part % n)
        elif tokenizer.piece_to_id("<0xE5>") != tokenizer.unk_id():
            ids += bytes_of(tokenizer, part)
    return ids


drawn = st.lists(st.integers(0, 10_000) | utf8, max_size=10)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(drawn=drawn, cuts=st.lists(st.integers(0, 20), max_size=4))
@example(drawn=[b"\xe5\x8c\x97"], cuts=[1, 2])
@example(drawn=[b"\xe5\x8c"], cuts=[1])
@example(drawn=[b"\xe5", 300, b"\x8c\x97"], cuts=[1, 2])
def test_text_is_that_of_sentencepiece_in_any_chunking(kind, drawn, cuts):
    tokenizer = tokenizer_of(kind)
    ids = ids_of(tokenizer, drawn)
    expected = tokenizer.decode_ids(ids)
    whole, read = detokenizers(kind)
    assert whole.text(ids) == expected
    if tokenizer.unk_id() == 0 or 0 not in ids:  # label 0 is blank, whatever the tokenizer says
        assert read.text(ids) == expected
    state = TextState()
    ends = sorted({*(cut for cut in cuts if cut < len(ids)), len(ids)})
    said = [whole.feed(state, ids[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    assert "".join(said) + whole.end(state) == expected
    assert len(state.pending) == 0


@pytest.mark.parametrize("lines", [["<blk> 0", "B 2", "A 1"], ["<blk> 1", "A 2"], ["<blk> 0", "A"]])
def test_tokens_in_another_order_than_their_ids_are_refused(lines):
    with pytest.raises(ConfigError, match="must end in the id"):
        Detokenizer.of_tokens("\n".join(lines))
    assert Detokenizer.of_tokens("<blk> 0\r\n  1\r\n").pieces[1] == " "


def test_a_character_is_held_back_until_its_bytes_are_there():
    tokenizer = tokenizer_of("bytes")
    detokenizer, state = Detokenizer.of_tokenizer(tokenizer), TextState()
    said = [detokenizer.feed(state, [i]) for i in bytes_of(tokenizer, "北A".encode())]
    assert said == ["", "", "北", "A"]
    assert detokenizer.feed(state, bytes_of(tokenizer, b"\xe5\x8c")) == ""
    # What follows cannot be a part of it.
    assert detokenizer.feed(state, bytes_of(tokenizer, b"\xe5")) == "\ufffd\ufffd"
    assert detokenizer.end(state) == "\ufffd"
    assert detokenizer.end(state) == ""


@pytest.mark.parametrize("symbol", ["<0xE5>", "A<0x0A>", "<blk>"])
def test_a_piece_that_would_be_taken_for_another_is_refused(symbol):
    KINDS[symbol] = {"user_defined_symbols": [symbol]}
    try:
        with pytest.raises(ConfigError, match=r"piece 1 of the tokenizer, .* tokens\.txt"):
            tokens_of(tokenizer_of(symbol))
    finally:
        del KINDS[symbol]


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_page_turns_ids_into_the_same_text(tmp_path):
    cases = []
    for kind in KINDS:
        tokenizer = tokenizer_of(kind)
        first = 0 if tokenizer.unk_id() == 0 else 1
        n = tokenizer.get_piece_size()
        lists = [[i] for i in range(first, n)]
        lists += [[a, b] for a in range(first, min(n, 16)) for b in range(first, min(n, 16))]
        if tokenizer.piece_to_id("<0xE5>") != tokenizer.unk_id():
            lists += [
                bytes_of(tokenizer, data)
                for data in (
                    *("北京 😀\ufeff é".encode()[a:b] for a in range(20) for b in range(a, 20)),
                    b"\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80\xe0\x80\x80\xff\xfe",
                    b"\xe5A\x8c\xf0\x9f\x98",
                )
            ]
        expected = [tokenizer.decode_ids(ids) for ids in lists]
        cases.append({"tokens": tokens_of(tokenizer), "ids": lists, "texts": expected})
    shutil.copy(PAGE / "tokens.js", tmp_path / "tokens.mjs")
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "test.mjs").write_text(
        'import { readFileSync } from "fs";\n'
        'import { piecesOf, textOf } from "./tokens.mjs";\n'
        'const cases = JSON.parse(readFileSync("cases.json"));\n'
        "const read = cases.map(({ tokens, ids }) => {\n"
        "  const pieces = piecesOf(tokens);\n"
        "  return ids.map((list) => textOf(list, pieces));\n"
        "});\n"
        "console.log(JSON.stringify(read));\n"
    )
    done = subprocess.run(
        [NODE, "test.mjs"], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    for case, texts in zip(cases, json.loads(done.stdout), strict=True):
        assert texts == case["texts"]
