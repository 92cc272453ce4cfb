import logging
import os

import numpy as np
import pytest
import soundfile

from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.faults import EVALUATE, TRAIN
from todm_sb.dataio.librispeech import prepare_librispeech, reference_of
from todm_sb.dataio.manifest import read_csv
from todm_sb.utils.errors import ConfigError, DataError

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
    assert rows["103-1240-0000"].spk_id == "103"
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
def test_a_bad_utterance_of_a_dev_or_test_set_counts_or_is_stated(
    corpus, save, caplog, damage, kind, message
):
    damage(corpus / "train-clean-100" / "19" / "198")
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(corpus, save, te_splits=["train-clean-100"])
    assert caplog.messages[-1] == f"train-clean-100: 1 of 3 utterances not sound: 1 {kind}"

    def scored(split, purpose):
        report = check_manifest(save / f"{split}.csv", Limits(RATE), "ends", purpose=purpose)
        lost = {x.fault.id: x.words for x in report.undecodable}
        return {row.ID for row in report.rows}, lost, report.left_out

    sound, lost, left_out = scored("train-clean-100", EVALUATE)
    assert sound == {"19-198-0000", "103-1240-0000"}
    if "transcript" in kind and damage is not remove_audio:
        assert (lost, left_out) == ({}, {"empty transcript": 1})
    else:
        assert (lost, left_out) == ({"19-198-0001": "stop now"}, {})
    assert scored("train-clean-100", TRAIN)[0] == sound


def test_contradictory_transcripts_and_shared_ids_of_a_test_set_are_stated(stems_again, save):
    with (stems_again / "train" / "1" / "10" / "1-10.trans.txt").open("a") as file:
        file.write("utt0003 ANOTHER\n")
    (stems_again / "train" / "2" / "10" / "utt0003.flac").unlink()
    prepare_librispeech(stems_again, save, dev_splits=["train"])
    rows = {row.ID: row for row in read_csv(save / "train.csv")}
    assert len(rows) == 12
    assert (rows["1-10-utt0003"].wrds, rows["2-10-utt0003"].wrds) == ("", "TWO-TEN 3")
    assert {name for name, row in rows.items() if not row.duration} == {
        "1-10-utt0003",
        "2-10-utt0003",
    }


def test_a_split_that_becomes_a_test_set_is_prepared_for_it(corpus, save):
    remove_audio(corpus / "train-clean-100" / "19" / "198")
    prepare_librispeech(corpus, save, ["train-clean-100"])
    prepare_librispeech(corpus, save, te_splits=["train-clean-100"])
    assert len(read_csv(save / "train-clean-100.csv")) == 3


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


# Pairs of audio and transcript.


@pytest.fixture
def stems_again(tmp_path):
    """Two chapters of one speaker and one of another, with the same four names of files in each.
    The words say where they were spoken, and so does the audio's length."""
    root = tmp_path / "corpus"
    for number, (speaker, chapter) in enumerate([(1, 10), (1, 11), (2, 10)], start=1):
        folder = root / "train" / str(speaker) / str(chapter)
        folder.mkdir(parents=True)
        for index in range(4):
            soundfile.write(folder / f"utt{index:04d}.flac", np.zeros(100 * number + index), RATE)
        lines = [f"utt{index:04d} {PLACES[number - 1]} {index}\n" for index in range(4)]
        (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return root


PLACES = ["ONE-TEN", "ONE-ELEVEN", "TWO-TEN"]


def samples_of(words):
    place, index = words.split()
    return 100 * (1 + PLACES.index(place)) + int(index)


def test_audio_of_the_same_name_in_several_chapters_keeps_its_own_transcript(stems_again, save):
    prepare_librispeech(stems_again, save, ["train"], strict=True)
    rows = read_csv(save / "train.csv")
    assert [samples_of(row.wrds) for row in rows] == [soundfile.info(r.wav).frames for r in rows]
    assert len(rows) == len({row.ID for row in rows}) == 12
    assert rows[0].ID == "1-10-utt0000"
    assert {row.spk_id for row in rows} == {"1", "2"}


def test_audio_that_is_missing_is_not_replaced_by_another_speakers(stems_again, save, caplog):
    for chapter, name in [("1/10", "utt0000"), ("2/10", "utt0003")]:
        (stems_again / "train" / chapter / f"{name}.flac").unlink()
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(stems_again, save, ["train"])
    rows = read_csv(save / "train.csv")
    assert [samples_of(row.wrds) for row in rows] == [soundfile.info(r.wav).frames for r in rows]
    assert len(rows) == len({row.ID for row in rows}) == 10
    assert caplog.messages[-1] == "train: 2 of 12 utterances skipped: 2 transcript without audio"
    assert "1-10.trans.txt" in caplog.messages[0]
    assert "2-10.trans.txt" in caplog.messages[1]


def test_ids_do_not_depend_on_which_utterances_are_sound_or_asked_for(stems_again, save):
    (stems_again / "train" / "1" / "11" / "utt0000.flac").unlink()
    (stems_again / "train" / "2" / "10" / "utt0000.flac").unlink()
    prepare_librispeech(stems_again, save, ["train"], select_n_sentences=1)
    assert [row.ID for row in read_csv(save / "train.csv")] == ["1-10-utt0000"]


def test_ids_that_two_splits_share_are_told_apart_in_the_csv_of_both(stems_again, save):
    (stems_again / "other" / "1").mkdir(parents=True)
    (stems_again / "train" / "1" / "11").rename(stems_again / "other" / "1" / "11")
    splits = ["train", "other"]
    prepare_librispeech(stems_again, save, splits, merge_lst=splits, merge_name="both.csv")
    rows = read_csv(save / "both.csv")
    assert [samples_of(row.wrds) for row in rows] == [soundfile.info(r.wav).frames for r in rows]
    assert len({row.ID for row in rows}) == 12
    assert [row.ID for row in read_csv(save / "other.csv")][:1] == ["utt0000"]


def test_utterances_that_cannot_be_told_apart_are_an_error_that_names_both_files(tmp_path, save):
    root = tmp_path / "corpus"
    for speaker, chapter in [("1-2", "3"), ("1", "2-3")]:
        folder = add_chapter(root, "train", speaker, chapter, ["YES"])
        (folder / f"{speaker}-{chapter}-0000.flac").rename(folder / "a.flac")
        transcript(folder).write_text("a YES\n")
    with pytest.raises(DataError, match=r"1-2-3-a is there twice, .*/1/2-3/a\.flac and .*/1-2/3/a"):
        prepare_librispeech(root, save, ["train"])
    assert not save.exists()


@pytest.mark.parametrize("place", [".", "19", "19/198/more"])
def test_audio_at_another_depth_is_named(corpus, save, caplog, place):
    prepare_librispeech(corpus, save, ["train-clean-100"])
    folder = corpus / "train-clean-100" / "19" / "198"
    target = corpus / "train-clean-100" / place
    target.mkdir(exist_ok=True)
    for path in [*folder.glob("*.*")]:
        path.rename(target / path.name)
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(corpus, save, ["train-clean-100"])
    assert [row.ID for row in read_csv(save / "train-clean-100.csv")] == ["103-1240-0000"]
    assert caplog.messages[-1].endswith("2 of 3 utterances skipped: 2 audio in no chapter")
    assert f"{target}/19-198-0000.flac is not in <split>/<speaker>/<chapter>" in caplog.messages[0]


def test_the_speaker_is_that_of_the_folders(corpus, save):
    folder = corpus / "dev-clean" / "84" / "121123"
    (folder / "84-121123-0000.flac").rename(folder / "recording-a.flac")
    transcript(folder).write_text("recording-a PERHAPS\n")
    prepare_librispeech(corpus, save, ["dev-clean"])
    (row,) = read_csv(save / "dev-clean.csv")
    assert (row.ID, row.spk_id, row.wrds) == ("recording-a", "84", "PERHAPS")


@pytest.mark.parametrize("name", ["19-198.trans.txt", "again.trans.txt"])
def test_two_transcripts_of_one_utterance_are_a_fault_unless_they_agree(corpus, save, caplog, name):
    folder = corpus / "train-clean-100" / "19" / "198"
    with (folder / name).open("a") as file:
        file.write("19-198-0000 GO  ON\n19-198-0001 STOP LATER\n")
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(corpus, save, ["train-clean-100"])
    rows = {row.ID: row.wrds for row in read_csv(save / "train-clean-100.csv")}
    assert rows == {"19-198-0000": "GO ON", "103-1240-0000": "YES"}
    assert caplog.messages[-1].endswith("1 of 3 utterances skipped: 1 contradictory transcripts")
    assert all(x in caplog.messages[0] for x in ("19-198-0001", "stop now", "STOP LATER", name))


def test_the_same_split_twice_in_one_csv_is_refused(corpus, save):
    splits = ["dev-clean", "dev-clean"]
    with pytest.raises(DataError, match="names a split twice"):
        prepare_librispeech(corpus, save, splits, merge_lst=splits, merge_name="t.csv")


# Text as it is written.


def write_words(corpus, text, encoding="utf-8"):
    """As the whole transcript of dev-clean's chapter, which has one utterance."""
    transcript(corpus / "dev-clean" / "84" / "121123").write_bytes(text.encode(encoding))


def words_of(corpus, save, **options):
    prepare_librispeech(corpus, save, ["dev-clean"], strict=True, **options)
    (row,) = read_csv(save / "dev-clean.csv")
    return row.wrds


@pytest.mark.parametrize("character", "\u2028\u2029\x85\x1c\v\f\r\xa0\u3000")
def test_a_line_of_a_transcript_ends_nowhere_but_at_its_end(corpus, save, character):
    write_words(corpus, f"84-121123-0000 SIX{character}ZERO FOUR\r\n")
    ascii_space = character in "\v\f\r"
    expected = "SIX ZERO FOUR" if ascii_space else f"SIX{character}ZERO FOUR"
    assert words_of(corpus, save) == expected


def test_a_byte_order_mark_does_not_belong_to_the_first_id(corpus, save):
    write_words(corpus, "84-121123-0000 SIX\n", "utf-8-sig")
    assert words_of(corpus, save) == "SIX"


def test_nor_do_those_of_transcripts_that_were_put_one_after_another(corpus, save):
    folder = corpus / "train-clean-100" / "19" / "198"
    words = ["19-198-0000 SIX\n", "\ufeff19-198-0001 ZERO\n"]
    transcript(folder).write_text("\ufeff\ufeff" + "".join(words), encoding="utf-8")
    prepare_librispeech(corpus, save, ["train-clean-100"], strict=True)
    rows = {row.ID: row.wrds for row in read_csv(save / "train-clean-100.csv")}
    assert (rows["19-198-0000"], rows["19-198-0001"]) == ("SIX", "ZERO")


def test_a_transcript_in_utf16_is_named(corpus, save):
    write_words(corpus, "84-121123-0000 SIX\n", "utf-16")
    with pytest.raises(DataError, match=r"84-121123\.trans\.txt .*UTF-8"):
        prepare_librispeech(corpus, save, ["dev-clean"])


@pytest.mark.parametrize(
    "text",
    [
        "\u0131l\u0131k ilik",  # lukewarm, marrow
        "Straße Strasse",
        "ΟΔΟΣ οδος οδοσ",
        "A\u030arhus \u212bngström naïve",
    ],
)
def test_letters_stay_as_they_are_unless_the_recipe_says_otherwise(corpus, save, text):
    write_words(corpus, f"84-121123-0000 {text}\n")
    assert words_of(corpus, save) == text
    assert words_of(corpus, save, letter_case="upper") == text.upper()
    assert words_of(corpus, save, letter_case="lower") == text.lower()


@pytest.mark.parametrize("value", ["UPPER", "", None, ["upper"]])
def test_an_unknown_letter_case_is_answered_with_those_there_are(corpus, save, value):
    with pytest.raises(ConfigError, match="make it keep, upper, lower"):
        prepare_librispeech(corpus, save, ["dev-clean"], letter_case=value)
    assert not save.exists()


def test_a_reference_is_read_by_the_same_rules(corpus):
    audio = corpus / "dev-clean" / "84" / "121123" / "84-121123-0000.flac"
    write_words(corpus, "84-121123-0000 six\u2028ZERO\r\n", "utf-8-sig")
    assert reference_of(audio) == "six\u2028ZERO"
    assert reference_of(audio.with_name("84-121123-0001.flac")) is None
    assert reference_of(corpus / "nowhere" / "84-121123-0000.flac") is None


def test_what_macos_leaves_in_folders_is_no_data(corpus, save):
    prepare_librispeech(corpus, save / "before", ["train-clean-100"], strict=True)
    for path in [*corpus.rglob("*")]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7\xff")
    for folder in [p for p in corpus.rglob("*") if p.is_dir()]:
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1\xff")
    prepare_librispeech(corpus, save / "after", ["train-clean-100"], strict=True)
    before, after = (read_csv(save / x / "train-clean-100.csv") for x in ("before", "after"))
    assert after == before


def test_a_name_that_is_no_text_is_left_out_and_named(corpus, save, caplog):
    folder = corpus / "train-clean-100" / "19"
    (folder / "198").rename(folder / os.fsdecode(b"gr\xf6\xdfe"))
    with caplog.at_level(logging.WARNING, "todm_sb.dataio.librispeech"):
        prepare_librispeech(corpus, save, ["train-clean-100"])
    assert [row.ID for row in read_csv(save / "train-clean-100.csv")] == ["103-1240-0000"]
    assert caplog.messages[-1].endswith("2 of 3 utterances skipped: 2 name that is no text")
    assert all(message.isprintable() for message in caplog.messages)


def test_preparing_leaves_no_bar_in_a_log(corpus, save, capfd):
    prepare_librispeech(corpus, save, ["train-clean-100"])
    assert capfd.readouterr().err == ""


# What is current.

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
LAST = "train-clean-100/19/198/19-198-0001.flac"


@pytest.mark.parametrize(
    ("change", "durations"),
    [
        (lambda p: soundfile.write(p, np.zeros(1000), RATE), [0.5, 0.1, 1000 / RATE, 0.1, 0.1]),
        (lambda p: soundfile.write(p, NOISE, RATE), [0.5, 0.1, 0.0625, 0.1, 0.1]),
        (lambda p: p.write_bytes(b""), [0.5, 0.1, 0.1, 0.1]),
        (lambda p: p.unlink(), [0.5, 0.1, 0.1, 0.1]),
        (lambda p: p.rename(p.with_name("19-198-0002.flac")), [0.5, 0.1, 0.1, 0.1]),
        (
            lambda p: exchange(p, p.parents[2] / "103" / "1240" / "103-1240-0000.flac"),
            [0.1, 0.1, 0.5, 0.1, 0.1],
        ),
    ],
    ids=["trimmed silence", "trimmed noise", "emptied", "removed", "renamed", "exchanged"],
)
def test_audio_that_changes_after_preparation_is_prepared_anew(corpus, save, change, durations):
    splits = ["train-clean-100", "train-other-500"]

    def prepare():
        prepare_librispeech(corpus, save, splits, merge_lst=splits, merge_name="train.csv")
        return [row.duration for row in read_csv(save / "train.csv")]

    assert prepare() == [0.5, 0.1, 0.1, 0.1, 0.1]
    path = corpus / LAST
    before = path.stat()
    change(path)
    if path.exists() and path.stat().st_size != before.st_size:  # as rsync --times leaves it
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert prepare() == durations
    assert prepare() == durations


def exchange(one, two):
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


@pytest.mark.parametrize("change", [lambda text: text[:-20], lambda text: text + "mine,1,a,b,C\n"])
@pytest.mark.parametrize("name", ["train-clean-100", "train"])
@pytest.mark.parametrize("damage", [lambda chapter: None, remove_audio], ids=["sound", "faulty"])
def test_a_csv_that_somebody_changed_is_neither_used_nor_overwritten(
    corpus, save, damage, change, name
):
    damage(corpus / "train-clean-100" / "19" / "198")
    splits = ["train-clean-100", "train-other-500"]

    def prepare(**options):
        prepare_librispeech(corpus, save, splits, merge_lst=splits, merge_name="train", **options)

    prepare()
    path = save / f"{name}.csv"
    whole = path.read_text()
    path.write_text(change(whole))
    before = {p: p.read_bytes() for p in save.iterdir()}
    for options in ({}, {"select_n_sentences": 1}):
        with pytest.raises(DataError, match=rf"/{name}\.csv was changed .*remove it") as caught:
            prepare(**options)
        assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in save.iterdir()} == before
    path.unlink()
    prepare()
    assert path.read_text() == whole
