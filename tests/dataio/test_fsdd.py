import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from todm_sb.dataio.digit_strings import INDICES, WORDS
from todm_sb.dataio.fsdd import prepare_fsdd
from todm_sb.dataio.manifest import read_csv
from todm_sb.utils.errors import DataError

RATE = 8000
SPEAKERS = ("anna", "bert", "cleo")
SIZES = {"train_hours": 0.02, "n_dev": 18, "n_test": 30}


def real_dataset():
    """The clone that TODM_FSDD names, or the one beside the repository."""
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "free-spoken-digit-dataset"
    return Path(os.environ.get("TODM_FSDD", beside))


def frequency(digit, speaker, index):
    """Tone of a made-up recording: no two are alike."""
    return 500 + (SPEAKERS.index(speaker) * 500 + digit * 50 + index) * 2.0


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A dataset in which every recording is a tone of its own frequency, 0.1 s long."""
    folder = tmp_path_factory.mktemp("clone") / "recordings"
    folder.mkdir()
    time = np.arange(RATE // 10) / RATE
    for speaker in SPEAKERS:
        for digit in range(10):
            for index in range(50):
                tone = 0.5 * np.sin(2 * np.pi * frequency(digit, speaker, index) * time)
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", tone, RATE)
    return folder.parent


@pytest.fixture
def copy(clone, tmp_path):
    """A dataset that a test may damage (links, so cheap)."""
    folder = tmp_path / "clone" / "recordings"
    folder.mkdir(parents=True)
    for path in (clone / "recordings").iterdir():
        os.link(path, folder / path.name)
    return folder.parent


@pytest.fixture(scope="module")
def prepared(clone, tmp_path_factory):
    save = tmp_path_factory.mktemp("save")
    prepare_fsdd(str(clone), str(save), seed=3, **SIZES)
    return save


def recordings_in(row):
    """Which recordings a string was made of, told by their tones."""
    audio, _ = soundfile.read(row.wav)
    # A tone has RMS 0.35, a pause next to nothing: 10 ms frames tell them apart.
    loud = np.sqrt((audio[: len(audio) // 80 * 80].reshape(-1, 80) ** 2).mean(axis=1)) > 0.05
    edges = np.flatnonzero(np.diff(np.r_[False, loud, False].astype(int)))
    found = []
    for start, stop in edges.reshape(-1, 2):
        middle = (start + stop) * 40
        window = audio[middle - 350 : middle + 350] * np.hanning(700)
        tone = np.abs(np.fft.rfft(window, 2**14)).argmax() * RATE / 2**14
        code = round((tone - 500) / 2)
        found.append((code % 500 // 50, SPEAKERS[code // 500], code % 50))
    return found


@pytest.fixture(scope="module")
def strings(prepared):
    """Rows and recordings of every string, by split."""
    return {
        split: [(row, recordings_in(row)) for row in read_csv(prepared / f"{split}.csv")]
        for split in INDICES
    }


def test_a_string_is_3_to_7_recordings_of_one_speaker_and_says_their_digits(strings):
    lengths = set()
    for split, made in strings.items():
        for row, recordings in made:
            assert row.wrds == " ".join(WORDS[digit] for digit, _, _ in recordings)
            assert {speaker for _, speaker, _ in recordings} == {row.spk_id}
            assert row.ID.startswith(f"{row.spk_id}-{split}-")
            assert len(set(recordings)) == len(recordings)
            lengths.add(len(recordings))
    assert lengths == {3, 4, 5, 6, 7}


def test_no_recording_is_in_two_splits_and_test_is_the_official_one(strings):
    used = {
        split: {index for _, recordings in made for _, _, index in recordings}
        for split, made in strings.items()
    }
    assert used["test"] == set(range(5))
    assert used["dev"] == {5, 6, 7}
    assert used["train"] == set(range(8, 50))


@pytest.mark.parametrize(("split", "count"), [("dev", 18), ("test", 30)])
def test_dev_and_test_use_every_recording_equally_often(strings, split, count):
    uses = Counter(recording for _, made in strings[split] for recording in made)
    assert len(strings[split]) == count
    assert len(uses) == 10 * len(SPEAKERS) * len(INDICES[split])
    assert set(uses.values()) == {1}


def test_several_uses_of_a_recording_are_in_strings_of_their_own(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, **SIZES | {"n_test": 91})
    rows = read_csv(tmp_path / "test.csv")
    uses = Counter(recording for row in rows for recording in recordings_in(row))
    assert len(rows) == 91
    assert set(uses.values()) == {3}
    assert all(len(set(recordings_in(row))) == len(row.wrds.split()) for row in rows)


def test_training_lasts_as_long_as_asked_and_is_balanced(strings):
    rows = [row for row, _ in strings["train"]]
    hours = sum(row.duration for row in rows) / 3600
    assert hours == pytest.approx(SIZES["train_hours"], rel=0.1)

    by_speaker = Counter(row.spk_id for row in rows)
    assert set(by_speaker) == set(SPEAKERS)
    assert max(by_speaker.values()) == min(by_speaker.values())
    digits = Counter(word for row in rows for word in row.wrds.split())
    assert set(digits) == set(WORDS)


def test_training_uses_a_recording_again_only_when_all_others_were_used(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, **SIZES | {"train_hours": 0.1})
    uses = Counter(r for row in read_csv(tmp_path / "train.csv") for r in recordings_in(row))
    for speaker in SPEAKERS:
        counts = [uses[digit, speaker, i] for digit in range(10) for i in INDICES["train"]]
        assert max(counts) - min(counts) <= 1
        assert max(counts) >= 1


def test_audio_is_8_khz_flac_with_short_pauses_that_are_not_silent(strings, prepared):
    for split, made in strings.items():
        for row, recordings in made[:10]:
            assert Path(row.wav) == prepared / "audio" / split / f"{row.ID}.flac"
            header = soundfile.info(row.wav)
            assert (header.format, header.samplerate, header.channels) == ("FLAC", RATE, 1)
            assert header.duration == row.duration
            pauses = row.duration - 0.1 * len(recordings)
            assert 0.05 <= pauses / (len(recordings) + 1) <= 0.2
            audio, _ = soundfile.read(row.wav)
            assert 1e-3 < np.abs(audio[:400]).mean() < 0.03


def test_a_held_out_speaker_is_all_of_test_and_nowhere_else(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, held_out_speaker="bert", **SIZES | {"n_test": 100})

    rows = {split: read_csv(tmp_path / f"{split}.csv") for split in INDICES}
    assert {row.spk_id for row in rows["test"]} == {"bert"}
    assert {row.spk_id for row in rows["train"]} == {"anna", "cleo"}
    assert {row.spk_id for row in rows["dev"]} == {"anna", "cleo"}
    uses = Counter(recording for row in rows["test"] for recording in recordings_in(row))
    assert set(uses) == {(digit, "bert", index) for digit in range(10) for index in range(50)}
    assert set(uses.values()) == {1}


def test_each_seed_leaves_another_speaker_out(clone, tmp_path):
    sizes = SIZES | {"n_test": 100}
    for seed, speaker in [(2, "cleo"), (4, "bert")]:
        folders = tmp_path / f"{seed}", tmp_path / speaker
        for folder, held_out in zip(folders, ["by-seed", speaker], strict=True):
            prepare_fsdd(clone, folder, seed=seed, held_out_speaker=held_out, **sizes)
        csvs = [[read_csv(folder / f"{split}.csv") for split in INDICES] for folder in folders]
        words = [[[(r.ID, r.spk_id, r.wrds) for r in rows] for rows in found] for found in csvs]
        assert words[0] == words[1]
        assert {row.spk_id for row in csvs[0][0]} == {speaker}


def contents(save):
    """CSVs and audio that a preparation wrote, with its own folder's name taken out."""
    return {
        str(path.relative_to(save)): path.read_bytes().replace(str(save).encode(), b"")
        for path in save.rglob("*.*")
        if path.suffix in (".csv", ".flac")
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(clone, prepared, tmp_path):
    prepare_fsdd(clone / "recordings", tmp_path / "same", seed=3, num_threads=1, **SIZES)
    prepare_fsdd(clone, tmp_path / "other", seed=4, **SIZES)
    assert contents(tmp_path / "same") == contents(prepared)
    assert len(contents(prepared)) > 60
    assert contents(tmp_path / "other")["test.csv"] != contents(prepared)["test.csv"]


def test_nothing_is_done_again_until_the_options_change(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, **SIZES)
    for split in INDICES:
        os.utime(tmp_path / f"{split}.csv", ns=(10**9, 10**9))
    prepare_fsdd(clone, tmp_path, **SIZES)
    assert (tmp_path / "dev.csv").stat().st_mtime_ns == 10**9

    prepare_fsdd(clone, tmp_path, **SIZES | {"n_dev": 20})
    assert len(read_csv(tmp_path / "dev.csv")) == 20


def test_audio_that_changes_after_preparation_is_made_again(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, **SIZES)
    before = contents(tmp_path)
    path = sorted(tmp_path.rglob("*.flac"))[3]
    for change in (lambda: path.write_bytes(path.read_bytes()[:-1000]), path.unlink):
        change()
        prepare_fsdd(clone, tmp_path, **SIZES)
        assert contents(tmp_path) == before


def test_recordings_that_change_are_read_again(copy, tmp_path):
    save = tmp_path / "save"
    prepare_fsdd(copy, save, **SIZES)
    hours = sum(row.duration for row in read_csv(save / "test.csv"))
    path = copy / "recordings" / "4_bert_2.wav"
    samples, _ = soundfile.read(path)
    path.unlink()  # the link, not what it shares with the other tests
    soundfile.write(path, np.r_[samples, samples], RATE)
    prepare_fsdd(copy, save, **SIZES)
    assert sum(row.duration for row in read_csv(save / "test.csv")) == pytest.approx(hours + 0.1)


def test_a_csv_that_somebody_changed_is_neither_used_nor_overwritten(clone, tmp_path):
    prepare_fsdd(clone, tmp_path, **SIZES)
    with (tmp_path / "dev.csv").open("a") as file:
        file.write("mine,1.0,mine.flac,me,ONE\n")
    before = contents(tmp_path)
    for options in ({}, {"seed": 2}):
        with pytest.raises(DataError, match=r"dev\.csv was changed .*remove it"):
            prepare_fsdd(clone, tmp_path, **SIZES, **options)
    assert contents(tmp_path) == before


def test_what_macos_leaves_in_folders_is_no_recording(copy, tmp_path):
    recordings = copy / "recordings"
    for path in [*recordings.iterdir()]:
        (recordings / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    (recordings / ".DS_Store").write_bytes(b"Bud1")
    prepare_fsdd(copy, tmp_path / "save", **SIZES)
    for path in recordings.iterdir():
        if not path.name.startswith("."):
            path.unlink()
    with pytest.raises(DataError, match="no recordings of spoken digits"):
        prepare_fsdd(copy, tmp_path / "save", **SIZES)


def test_skip_prep_does_nothing(tmp_path):
    prepare_fsdd(tmp_path / "nowhere", tmp_path / "save", skip_prep=True)
    assert not (tmp_path / "save").exists()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_the_dataset_says_what_to_clone(tmp_path, name):
    with pytest.raises(DataError, match=r"git clone https://github.com/Jakobovski/free-spoken"):
        prepare_fsdd(tmp_path / name, tmp_path / "save")


def test_an_unknown_speaker_is_answered_with_those_found(clone, tmp_path):
    with pytest.raises(DataError, match=r"no speaker 'zoe' .* anna, bert, cleo"):
        prepare_fsdd(clone, tmp_path, held_out_speaker="zoe")


def test_missing_recordings_are_counted_and_named(copy, tmp_path):
    for index in (11, 12):
        (copy / "recordings" / f"4_bert_{index}.wav").unlink()
    with pytest.raises(DataError, match=r"2 of 1500 recordings are missing .*4_bert_11\.wav"):
        prepare_fsdd(copy, tmp_path / "save")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no WAV"), r"cannot read .*4_bert_11\.wav"),
        (lambda path: soundfile.write(path, np.zeros(9), 16000), r"4_bert_11\.wav is not a mono"),
        (lambda path: soundfile.write(path, np.zeros(0), RATE), r"4_bert_11\.wav is not a mono"),
    ],
)
def test_an_unusable_recording_is_named(copy, tmp_path, damage, message):
    path = copy / "recordings" / "4_bert_11.wav"
    path.unlink()  # the link, not what it shares with the other tests
    damage(path)
    with pytest.raises(DataError, match=message):
        prepare_fsdd(copy, tmp_path / "save")


def test_too_few_strings_for_an_equal_use_are_refused_with_the_least_number(clone, tmp_path):
    with pytest.raises(DataError, match=r"n_test is 10, too few .* make it 24 or more"):
        prepare_fsdd(clone, tmp_path, **SIZES | {"n_test": 10})
    prepare_fsdd(clone, tmp_path, **SIZES | {"n_test": 24})
    assert len(read_csv(tmp_path / "test.csv")) == 24


@pytest.mark.skipif(
    not real_dataset().exists(),
    reason=f"no Free Spoken Digit Dataset at {real_dataset()} (TODM_FSDD names another place)",
)
def test_the_real_dataset_gives_strings_of_all_its_speakers(tmp_path):
    prepare_fsdd(real_dataset(), tmp_path, train_hours=0.05, n_dev=40, n_test=60)

    speakers = {"george", "jackson", "lucas", "nicolas", "yweweler"}
    for split in INDICES:
        rows = read_csv(tmp_path / f"{split}.csv")
        assert {row.spk_id for row in rows} >= speakers
        for row in rows:
            audio, rate = soundfile.read(row.wav)
            assert rate == RATE
            assert 0.7 < len(audio) / rate == row.duration < 10
            assert 1e-3 < audio.std() < 0.5
