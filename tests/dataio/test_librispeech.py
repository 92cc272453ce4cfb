import logging
import os

import numpy as np
import pytest
import soundfile

from todm_sb.dataio.librispeech import prepare_librispeech
from todm_sb.dataio.manifest import read_csv
from todm_sb.errors import DataError

RATE = 16000


def add_chapter(root, split, speaker, chapter, texts, seconds=0.1):
    """Writes a chapter of silent FLACs and its transcript; returns the chapter's folder."""
    folder = root / split / str(speaker) / str(chapter)
    folder.mkdir(parents=True)
    lines = []
    for index, text in enumerate(texts):
        name = f"{speaker}-{chapter}-{index:04d}"
        soundfile.write(folder / f"{name}.flac", np.zeros(round(seconds * RATE)), RATE)
        lines.append(f"{name} {text}\n")
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "LibriSpeech"
    add_chapter(root, "train-clean-100", 19, 198, ["GO ON", "stop  now"])
    add_chapter(root, "train-clean-100", 103, 1240, ["YES"], seconds=0.5)
    add_chapter(root, "train-other-500", 20, 205, ["NO", "WELL"])
    add_chapter(root, "dev-clean", 84, 121123, ["PERHAPS"])
    return root


@pytest.fixture
def save(tmp_path):
    return tmp_path / "save"


def transcript(folder):
    return next(folder.glob("*.trans.txt"))


def test_each_split_becomes_a_csv_of_its_utterances(corpus, save):
    prepare_librispeech(
        str(corpus), str(save), ["train-clean-100"], dev_splits=["dev-clean"], te_splits=[]
    )

    rows = {row.ID: row for row in read_csv(save / "train-clean-100.csv")}
    assert set(rows) == {"19-198-0000", "19-198-0001", "103-1240-0000"}
    assert rows["103-1240-0000"].duration == 0.5
    assert rows["103-1240-0000"].spk_id == "103-1240"
    assert rows["19-198-0001"].wrds == "stop now"
    for row in rows.values():
        assert soundfile.info(row.wav).duration == row.duration
    assert [row.wrds for row in read_csv(save / "dev-clean.csv")] == ["PERHAPS"]
    assert not (save / "train-other-500.csv").exists()


def test_the_order_of_a_csv_does_not_depend_on_the_number_of_threads(corpus, tmp_path):
    for threads in (1, 8):
        prepare_librispeech(
            corpus, tmp_path / str(threads), ["train-clean-100"], num_threads=threads
        )
    one, eight = (tmp_path / n / "train-clean-100.csv" for n in ("1", "8"))
    assert one.read_bytes() == eight.read_bytes()


def test_splits_merge_into_one_csv_in_the_order_asked_for(corpus, save):
    splits = ["train-clean-100", "train-other-500"]
    prepare_librispeech(corpus, save, splits, merge_lst=splits[::-1], merge_name="train.csv")

    parts = [read_csv(save / f"{split}.csv") for split in splits[::-1]]
    assert read_csv(save / "train.csv") == parts[0] + parts[1]
    assert len(parts[0] + parts[1]) == 5


def test_a_merge_of_the_split_of_that_name_is_the_splits_own_csv(corpus, save):
    (corpus / "dev-clean").rename(corpus / "train")
    prepare_librispeech(corpus, save, ["train"], merge_lst=["train"], merge_name="train.csv")
    assert [row.wrds for row in read_csv(save / "train.csv")] == ["PERHAPS"]


def test_a_split_is_cut_to_its_first_utterances(corpus, save):
    splits = ["train-clean-100", "train-other-500"]
    prepare_librispeech(corpus, save / "all", splits)
    prepare_librispeech(corpus, save / "one", splits, select_n_sentences=1)
    prepare_librispeech(corpus, save / "each", splits, select_n_sentences=[2, 1])

    def counts(name):
        return [len(read_csv(save / name / f"{split}.csv")) for split in splits]

    assert (counts("all"), counts("one"), counts("each")) == ([3, 2], [1, 1], [2, 1])
    whole = read_csv(save / "all" / "train-clean-100.csv")
    assert read_csv(save / "each" / "train-clean-100.csv") == whole[:2]


def test_what_was_made_of_other_options_is_not_taken_for_these(corpus, save):
    def count(**options):
        prepare_librispeech(corpus, save, ["train-clean-100"], **options)
        return len(read_csv(save / "train-clean-100.csv"))

    assert count(select_n_sentences=1) == 1
    # The audio of the last utterance breaks: this CSV is not recorded.
    audio = sorted((corpus / "train-clean-100").rglob("*.flac"))[-1]
    audio.write_bytes(b"broken")
    assert count() == 2
    assert count(select_n_sentences=1) == 1


def test_nothing_is_done_again_until_options_or_transcripts_change(corpus, save):
    splits = ["train-clean-100", "train-other-500"]

    def prepare(**options):
        prepare_librispeech(
            corpus, save, splits, merge_lst=splits, merge_name="train.csv", **options
        )

    def marks_kept():
        return [os.stat(save / f"{n}.csv").st_mtime_ns == 10**9 for n in (*splits, "train")]

    def mark():
        for name in (*splits, "train"):
            os.utime(save / f"{name}.csv", ns=(10**9, 10**9))

    prepare()
    mark()
    prepare()
    assert marks_kept() == [True, True, True]

    prepare(select_n_sentences=1)
    assert marks_kept() == [False, False, False]
    assert len(read_csv(save / "train.csv")) == 2

    prepare()
    mark()
    path = transcript(corpus / "train-other-500" / "20" / "205")
    path.write_text(path.read_text().replace("WELL", "ILL"))
    prepare()
    assert marks_kept() == [True, False, False]
    assert "ILL" in [row.wrds for row in read_csv(save / "train.csv")]


def test_skip_prep_does_nothing(tmp_path):
    prepare_librispeech(tmp_path / "nowhere", tmp_path / "save", ["train"], skip_prep=True)
    assert not (tmp_path / "save").exists()


def test_a_missing_data_folder_is_named(tmp_path, save):
    with pytest.raises(DataError, match=r"nowhere is not there"):
        prepare_librispeech(tmp_path / "nowhere", save, ["dev-clean"])


def test_a_missing_split_is_named_beside_those_found(corpus, save):
    (corpus / "README.TXT").write_text("not a split")
    found = "dev-clean, train-clean-100, train-other-500"
    with pytest.raises(DataError, match=rf"no split 'dev-other' in .*{found}"):
        prepare_librispeech(corpus, save, ["train-clean-100"], ["dev-other"])
    assert not save.exists()


def test_a_split_without_a_usable_utterance_is_an_error(corpus, save):
    (corpus / "empty" / "1" / "2").mkdir(parents=True)
    with pytest.raises(DataError, match=r"split 'empty' has no usable utterance"):
        prepare_librispeech(corpus, save, ["empty"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge_lst": ["dev-clean"]}, "without merge_name"),
        ({"merge_lst": ["dev-other"], "merge_name": "t.csv"}, "'dev-other', which is not among"),
        (
            {"merge_lst": ["dev-clean", "train-clean-100"], "merge_name": "dev-clean.csv"},
            "is the CSV of a split",
        ),
        ({"select_n_sentences": [1]}, "1 numbers for 2 splits"),
    ],
)
def test_contradictory_options_are_errors(corpus, save, options, message):
    with pytest.raises(DataError, match=message):
        prepare_librispeech(corpus, save, ["train-clean-100"], ["dev-clean"], **options)


def remove_audio(folder):
    (folder / "19-198-0001.flac").unlink()


def remove_transcript(folder):
    path = transcript(folder)
    path.write_text(path.read_text().splitlines()[0] + "\n")


def empty_transcript(folder):
    path = transcript(folder)
    path.write_text(path.read_text().replace("stop  now", ""))


def break_audio(folder):
    (folder / "19-198-0001.flac").write_bytes(b"this is no FLAC")


def empty_audio(folder):
    soundfile.write(folder / "19-198-0001.flac", np.zeros(0), RATE)


DAMAGES = pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (remove_audio, "transcript without audio", "utterance 19-198-0001 has no audio"),
        (remove_transcript, "audio without transcript", r"0001\.flac has no transcript"),
        (empty_transcript, "empty transcript", "19-198-0001 has an empty transcript"),
        (break_audio, "unreadable audio", r"cannot read .*19-198-0001\.flac"),
        (empty_audio, "unreadable audio", r"19-198-0001\.flac"),
    ],
)


@DAMAGES
def test_a_bad_utterance_is_left_out_counted_and_logged(
    corpus, save, caplog, damage, kind, message
):
    damage(corpus / "train-clean-100" / "19" / "198")
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(corpus, save, ["train-clean-100"])

    names = {row.ID for row in read_csv(save / "train-clean-100.csv")}
    assert names == {"19-198-0000", "103-1240-0000"}
    assert caplog.messages[-1] == f"train-clean-100: 1 of 3 utterances skipped: 1 {kind}"
    assert len(caplog.messages) == 2
    assert "19-198-0001" in caplog.messages[0]


@DAMAGES
def test_a_bad_utterance_is_an_error_when_strict(corpus, save, damage, kind, message):
    damage(corpus / "train-clean-100" / "19" / "198")
    with pytest.raises(DataError, match=message):
        prepare_librispeech(corpus, save, ["train-clean-100"], strict=True)
    assert not (save / "train-clean-100.csv").exists()


def test_mended_audio_is_taken_up_by_the_next_call(corpus, save):
    path = corpus / "train-clean-100" / "19" / "198" / "19-198-0001.flac"
    whole = path.read_bytes()
    path.write_bytes(b"")
    prepare_librispeech(corpus, save, ["train-clean-100"])
    assert len(read_csv(save / "train-clean-100.csv")) == 2

    path.write_bytes(whole)
    prepare_librispeech(corpus, save, ["train-clean-100"])
    assert len(read_csv(save / "train-clean-100.csv")) == 3


def test_a_transcript_that_is_no_text_is_named(corpus, save):
    path = transcript(corpus / "dev-clean" / "84" / "121123")
    path.write_bytes(b"84-121123-0000 \xff\xfe")
    with pytest.raises(DataError, match=r"84-121123\.trans\.txt is not UTF-8"):
        prepare_librispeech(corpus, save, ["dev-clean"])
