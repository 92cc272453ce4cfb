"""A tokenizer is made from what our reader reads, and fits the network or is refused."""

import io

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from speechbrain.tokenizers.SentencePiece import SentencePiece

from todm_sb.dataio.manifest import Row, mark_current, options_of, write_csv
from todm_sb.dataio.mini_corpus import plan_corpus
from todm_sb.dataio.reading import Reading
from todm_sb.dataio.tokenizer import check_tokenizer, encode, get_tokenizer, load_tokenizer
from todm_sb.utils.errors import ConfigError, DataError

WORDS = ["TURN ON THE LIGHT", "TURN OFF THE LIGHT", "THE RADIO IS ON", "IS THE DOOR OPEN"]
LETTERS = len(set("".join(WORDS))) + 1  # unknown, and the space among the others


def manifest(path, texts=WORDS):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, [Row(f"u{i}", 1.0, f"{i}.wav", "s", text) for i, text in enumerate(texts)])
    return str(path)


def pieces(tokenizer):
    n = tokenizer.vocab_size()
    return [(tokenizer.id_to_piece(i), tokenizer.get_score(i)) for i in range(n)]


def trained(**options):
    """A tokenizer of other options than ours."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_writer=model, **{"model_type": "char", **options}
    )
    return SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize(("kind", "size"), [("unigram", 128), ("bpe", 64), ("char", None)])
def test_it_has_the_pieces_that_speechbrains_class_would_give_it(tmp_path, kind, size):
    """On the texts of the mini corpus."""
    plan = plan_corpus(1234, {"train": 2000, "dev-clean": 100, "test-clean": 200})
    texts = [x.sentence.upper() for x in plan if x.split == "train"]
    csv = manifest(tmp_path / "train.csv", texts)
    size = size or len(set("".join(texts))) + 1
    theirs = SentencePiece(str(tmp_path / "theirs"), size, csv, "wrds", kind)
    ours = get_tokenizer(str(tmp_path / "ours"), size, csv, kind)
    assert pieces(ours) == pieces(theirs.sp)
    names = {path.name for path in (tmp_path / "ours").iterdir()}
    assert names == {f"{size}_{kind}.model", "prepared.json"}


@pytest.mark.parametrize("name", ["a b", "a,b", "a=b --vocab_size=7", "ä#1", "100%"])
def test_its_folder_may_have_any_name(tmp_path, name):
    csv = manifest(tmp_path / name / "train.csv")
    tokenizer = get_tokenizer(str(tmp_path / name / "tokenizer"), 20, csv)
    assert tokenizer.decode_ids(tokenizer.encode_as_ids(WORDS[0])) == WORDS[0]
    # The one that is there is taken again, its text no longer needed.
    again = get_tokenizer(str(tmp_path / name / "tokenizer"), 20, "none.csv")
    assert pieces(again) == pieces(tokenizer)


def test_one_of_the_same_text_read_otherwise_is_refused(tmp_path):
    csv, folder = manifest(tmp_path / "train.csv"), str(tmp_path / "tokenizer")
    get_tokenizer(folder, 20, csv)
    with pytest.raises(ConfigError, match=r"20_unigram.model .*text_normalization=nmt_nfkc, not"):
        get_tokenizer(folder, 20, csv, normalization="nmt_nfkc_cf")
    lower = {"normalization": "nmt_nfkc", "reading": Reading(letter_case="lower")}
    with pytest.raises(ConfigError, match="letter_case=keep, not lower: give another"):
        get_tokenizer(folder, 20, csv, **lower)
    # That of another run may serve any.
    get_tokenizer(folder, 20, manifest(tmp_path / "other.csv"), **lower)
    (tmp_path / "tokenizer" / "prepared.json").unlink()
    get_tokenizer(folder, 20, csv, **lower)


def test_one_of_another_column_is_refused_unless_its_text_is_the_same(tmp_path):
    folder, path = str(tmp_path / "tokenizer"), tmp_path / "m.csv"
    lines = [f"{i},1.0,a.wav,{text},{text},{text[3:]}" for i, text in enumerate(WORDS)]
    path.write_text("\n".join(["ID,duration,wav,wrd,again,other", *lines]))
    for column in (None, "again"):
        get_tokenizer(folder, 20, str(path), reading=Reading(column))
    with pytest.raises(ConfigError, match="text_column=None, not other: give another"):
        get_tokenizer(folder, 20, str(path), reading=Reading("other"))


def test_one_of_a_manifest_that_has_changed_is_told(tmp_path, caplog):
    csv, folder = manifest(tmp_path / "train.csv"), str(tmp_path / "tokenizer")
    get_tokenizer(folder, 20, csv)
    get_tokenizer(folder, 20, csv)
    assert caplog.text == ""
    get_tokenizer(folder, 20, manifest(tmp_path / "train.csv", WORDS[:3]))
    assert "trained from other transcripts than" in caplog.text


def test_the_manifest_is_not_read_where_no_transcripts_are_recorded(tmp_path, monkeypatch):
    csv, folder = manifest(tmp_path / "train.csv"), str(tmp_path / "tokenizer")
    get_tokenizer(folder, 20, csv)
    path = tmp_path / "tokenizer" / "20_unigram.model"
    mark_current(path, {k: v for k, v in options_of(path).items() if k != "texts"})
    monkeypatch.setattr("todm_sb.dataio.tokenizer.read_lines", None)
    get_tokenizer(folder, 20, csv)


@pytest.mark.parametrize("odd", [", ", ",", "BOM", "CRLF", "BLANK"])
def test_it_is_trained_on_what_check_data_accepts(tmp_path, odd):
    csv = manifest(tmp_path / "train.csv")
    expected = pieces(get_tokenizer(str(tmp_path / "a"), 20, csv))
    text = (tmp_path / "train.csv").read_text()
    text = {"BOM": "\ufeff" + text, "CRLF": text.replace("\n", "\r\n"), "BLANK": text + "\n\n"}.get(
        odd, text.replace(",", odd)
    )
    (tmp_path / "train.csv").write_bytes(text.encode())
    assert pieces(get_tokenizer(str(tmp_path / "b"), 20, csv)) == expected


def test_a_line_end_within_a_transcript_is_a_space(tmp_path):
    csv = (
        manifest(tmp_path / "a.csv"),
        manifest(tmp_path / "b.csv", [w.replace(" ", "\n") for w in WORDS]),
    )
    found = [pieces(get_tokenizer(str(tmp_path / str(i)), 20, path)) for i, path in enumerate(csv)]
    assert found[0] == found[1]


@pytest.mark.parametrize("more", [-1, 1, 20])
def test_characters_are_as_many_as_the_text_has(tmp_path, more):
    csv = manifest(tmp_path / "train.csv")
    with pytest.raises(ConfigError, match=f"{LETTERS} pieces.*set vocab_size to {LETTERS}"):
        get_tokenizer(str(tmp_path / "tokenizer"), LETTERS + more, csv, "char")
    assert not (tmp_path / "tokenizer").exists()
    assert get_tokenizer(str(tmp_path / "tokenizer"), LETTERS, csv, "char").vocab_size() == LETTERS


@pytest.mark.parametrize(
    ("ids", "unknown"),
    [({"pad_id": 0, "bos_id": 1, "unk_id": 2}, 2), ({"bos_id": 0, "unk_id": 1, "eos_id": 2}, 1)],
)
def test_unknown_letters_must_have_the_label_of_blank(tmp_path, ids, unknown):
    tokenizer = trained(**{"bos_id": -1, "eos_id": -1, "pad_id": -1, **ids})
    with pytest.raises(ConfigError, match=f"have id {unknown}, .* train it with unk_id=0"):
        check_tokenizer(tokenizer, tokenizer.vocab_size(), "it")
    # As a run finds it in its folder.
    n = tokenizer.vocab_size()
    (tmp_path / f"{n}_char.model").write_bytes(tokenizer.serialized_model_proto())
    with pytest.raises(ConfigError, match=f"{n}_char.model: unknown letters have id {unknown}"):
        get_tokenizer(str(tmp_path), n, "none.csv", "char")


def test_control_pieces_beside_blank_are_labels_that_never_occur():
    tokenizer = trained(unk_id=0, bos_id=1, eos_id=2, pad_id=3)
    check_tokenizer(tokenizer, LETTERS + 3, "it")
    assert not {0, 1, 2, 3} & set(encode(tokenizer, "TURN <s> 光 <pad> ON"))


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    csv = manifest(tmp_path / "train.csv")
    get_tokenizer(str(tmp_path), 20, csv)
    (tmp_path / "20_unigram.model").rename(tmp_path / "21_unigram.model")
    with pytest.raises(ConfigError, match="has 20 pieces, but the network 21 labels"):
        get_tokenizer(str(tmp_path), 21, csv)


def test_damage_is_one_line(tmp_path):
    sound = trained().serialized_model_proto()
    path = tmp_path / "20_unigram.model"
    for data in (
        b"",
        b"text\n",
        bytes(100),
        sound[:-1],
        sound[: len(sound) // 2],
        np.random.default_rng(0).bytes(999),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match="is not a SentencePiece model, or a damaged one"):
            get_tokenizer(str(tmp_path), 20, "none.csv")
    with pytest.raises(ConfigError, match="tokenizer none does not exist"):
        load_tokenizer("none")


def test_what_it_cannot_be_trained_from_is_one_line(tmp_path):
    csv = manifest(tmp_path / "train.csv")
    with pytest.raises(ConfigError, match=r"500 pieces.*too high.*<= \d+"):
        get_tokenizer(str(tmp_path / "a"), 500, csv)
    with pytest.raises(ConfigError, match="must be one of unigram, bpe, char, not 'word'"):
        get_tokenizer(str(tmp_path / "a"), 20, csv, "word")
    with pytest.raises(DataError, match=r"to train it from, does not exist"):
        get_tokenizer(str(tmp_path / "a"), 20, "none.csv")
    for texts in ([], ["", " "]):
        with pytest.raises(DataError, match="has no transcript to train the tokenizer from"):
            get_tokenizer(str(tmp_path / "a"), 20, manifest(tmp_path / "empty.csv", texts))
    assert not (tmp_path / "a").exists()
