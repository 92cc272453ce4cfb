"""Any text, any names: nothing is lost or exchanged on the way from a corpus to its score."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.librispeech import prepare_librispeech
from todm_sb.dataio.manifest import Row, read_csv, write_csv
from todm_sb.dataio.pipeline import make_dataset
from todm_sb.dataio.text import words_of_ids, words_of_text
from todm_sb.training.error_rates import ErrorRates

RATE = 16000
ASCII_SPACE = " \t\n\r\f\v"

# Characters that something takes for a line's end, white space, nothing, or another character.
ODD = [
    *("\u2028", "\u2029", "\x85", "\x1c", "\xa0", "\u3000", "\u200b", "\ufeff", "\u2581"),
    *("e\u0301", "\ufb01", "\uff21", "\u0131", "\u0130", "\xdf", "\u212b", "\uac00", "\U0001f600"),
    *('"', "'", ",", ";", "#", "$x", "%", "\\", "<0x41>", "<unk>", "!ref <x>", "{", "-", "=", "~"),
]


def text_without(characters, **sizes):
    """Any text, most of it odd."""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters=f"\0{characters}")
    odd = [piece for piece in ODD if not set(piece) & set(characters)]
    return st.lists(st.sampled_from(odd) | letters, **sizes).map("".join)


names = text_without("/", min_size=1, max_size=8).filter(lambda name: name[0] != ".")
ids = text_without(f"/{ASCII_SPACE}", min_size=1, max_size=8).filter(
    lambda name: name.strip() and name[0] not in ".\ufeff"
)
transcripts = st.lists(text_without(ASCII_SPACE, min_size=1, max_size=6), max_size=4)
chapters = st.dictionaries(
    st.tuples(names, names),
    st.dictionaries(st.sampled_from(["utt0", "utt1"]) | ids, transcripts, min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One that knows every character, by its bytes."""
    model = tmp_path_factory.mktemp("tokenizer") / "bytes"
    SentencePieceTrainer.train(
        sentence_iterator=iter(["TURN THE LIGHT ON", "the radio is off"]),
        model_prefix=str(model),
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return SentencePieceProcessor(model_file=f"{model}.model")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "a.flac"
    soundfile.write(path, 0.1 * np.sin(np.arange(RATE // 5)), RATE)
    return path


@contextmanager
def corpus_of(said, sound, line_end, encoding):
    """Folder ``corpus/train``, and what is said in each of its files."""
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for (speaker, chapter), utterances in said.items():
            place = Path(folder, "corpus", "train", speaker, chapter)
            place.mkdir(parents=True)
            for name, words in utterances.items():
                expected[str(place / f"{name}.flac")] = words
                os.link(sound, place / f"{name}.flac")
            lines = [" ".join([name, *words]) + line_end for name, words in utterances.items()]
            (place / "all.trans.txt").write_bytes("".join(lines).encode(encoding))
        yield Path(folder), expected


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    said=chapters,
    save=names,
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_every_utterance_is_scored_by_its_own_words(
    tokenizer, sound, said, save, line_end, encoding
):
    said = {**said, ("plain", "chapter"): {"utt0": ["TURN", "the", "LIGHT"]}}
    with corpus_of(said, sound, line_end, encoding) as (folder, expected):
        prepare_librispeech(folder / "corpus", folder / save, ["train"], num_threads=2)
        csv = folder / save / "train.csv"
        rows = read_csv(csv)
        assert {row.wav: row.wrds.split(" ") for row in rows} == {
            wav: words for wav, words in expected.items() if words
        }
        assert len({row.ID for row in rows}) == len(rows)
        assert all(row.spk_id == Path(row.wav).parts[-3] for row in rows)

        report = check_manifest(csv, Limits(RATE, 60.0, tokenizer), num_threads=2)
        assert len(report.rows) + len(report.faults) == len(rows)
        assert {fault.cause for fault in report.faults} <= {"empty transcript"}
        blank = [row.ID for row in rows if not words_of_text(tokenizer, row.wrds)]
        assert [fault.id for fault in report.faults] == blank

        dataset = make_dataset(str(csv), tokenizer, lambda seconds: 10**6, sample_rate=RATE)
        rates = ErrorRates(["oracle"])
        for item in dataset:
            found = words_of_ids(tokenizer, item["tokens"].tolist())
            rates.append("oracle", [item["id"]], [found], [item["words"]])
        assert len(rates.by_utterance()["utterances"]) == len(report.rows)
        assert rates.rates()["oracle"] == {"WER": 0, "CER": 0}


cells = text_without("", max_size=8)
rows_of_any_text = st.lists(
    st.builds(
        Row,
        ID=cells.filter(str.strip),
        duration=st.floats(0.01, 50),
        wav=cells.filter(str.strip),
        spk_id=cells,
        wrds=cells.filter(str.strip),
    ),
    unique_by=lambda row: row.ID,
    min_size=1,
    max_size=5,
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=rows_of_any_text)
def test_a_manifest_holds_any_text(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any_text.csv"
    write_csv(path, rows)
    assert read_csv(path) == rows
    found = [replace(row, wav=os.path.join(path.parent, row.wav)) for row in rows]
    assert check_manifest(path, Limits(), "none").rows == found
