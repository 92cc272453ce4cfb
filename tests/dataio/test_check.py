"""Dirty data: every kind of fault is found, named and counted, and none is taken for another."""

import csv
import logging
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from sentencepiece import SentencePieceTrainer

from todm_sb.cli import FAILED, OK, main
from todm_sb.dataio.audio import audio_fault, read_samples
from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.faults import EVALUATE, read_faults
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.pipeline import make_dataset, make_loader_kwargs
from todm_sb.dataio.tokenizer import get_tokenizer, load_tokenizer
from todm_sb.utils.errors import DataError

RATE = 16000
COLUMNS = ["ID", "duration", "wav", "spk_id", "wrds"]
WORDS = ["TURN ON THE LIGHT", "TURN OFF THE LIGHT", "THE RADIO IS ON", "IS THE DOOR OPEN"]


def tone(seconds=1.0, rate=RATE):
    return 0.3 * np.sin(np.arange(int(seconds * rate)) * 0.05)


def shortened(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def scrambled(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(bytes(content))


def without_length(path):
    """Takes it out of the header of a FLAC, where it has 36 bits."""
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)


def write(path, samples=None, rate=RATE, **options):
    soundfile.write(path, tone() if samples is None else samples, rate, **options)
    return path


# Each makes a broken file at a path without suffix, and gives its real path.
BROKEN_AUDIO = {
    "no such file": (lambda p: p, "missing file"),
    "dangling link": (lambda p: (p.symlink_to("nowhere"), p)[1], "missing file"),
    "a folder": (lambda p: (p.mkdir(), p)[1], "unreadable audio"),
    "an empty file": (lambda p: (p.touch(), p)[1], "unreadable audio"),
    "text": (lambda p: (p.write_text("<html>not found</html>"), p)[1], "unreadable audio"),
    "random bytes": (
        lambda p: (p.write_bytes(np.random.default_rng(0).bytes(5000)), p)[1],
        "unreadable audio",
    ),
    "half a FLAC header": (
        lambda p: (p := write(p.with_suffix(".flac")), p.write_bytes(p.read_bytes()[:20]))[0],
        "unreadable audio",
    ),
    "half a FLAC": (
        lambda p: (p := write(p.with_suffix(".flac")), shortened(p, 0.5))[0],
        ("unreadable audio", "truncated audio"),
    ),
    "a FLAC without its last bytes": (
        lambda p: (p := write(p.with_suffix(".flac")), shortened(p, 0.97))[0],
        ("unreadable audio", "truncated audio"),
    ),
    "a FLAC that was encoded into a pipe": (
        lambda p: (p := write(p.with_suffix(".flac")), without_length(p))[0],
        "unreadable audio",
    ),
    "samples without a header": (
        lambda p: (p := p.with_suffix(".raw"), p.write_bytes(bytes(3200)))[0],
        "unreadable audio",
    ),
    "half a WAV": (
        lambda p: (p := write(p.with_suffix(".wav")), shortened(p, 0.5))[0],
        "audio of another length",
    ),
    "a WAV header alone": (
        lambda p: (p := write(p.with_suffix(".wav")), p.write_bytes(p.read_bytes()[:44]))[0],
        "zero length",
    ),
    "no samples": (lambda p: write(p.with_suffix(".wav"), np.zeros(0)), "zero length"),
    "8 kHz": (lambda p: write(p.with_suffix(".flac"), tone(rate=8000), 8000), "wrong sample rate"),
    "44.1 kHz": (
        lambda p: write(p.with_suffix(".wav"), tone(rate=44100), 44100),
        "wrong sample rate",
    ),
    "stereo": (
        lambda p: write(p.with_suffix(".flac"), np.stack([tone(), tone()], 1)),
        "more than one channel",
    ),
    "longer than said": (
        lambda p: write(p.with_suffix(".flac"), tone(1.5)),
        "audio of another length",
    ),
    "shorter than said": (
        lambda p: write(p.with_suffix(".flac"), tone(0.5)),
        "audio of another length",
    ),
}
# What only decoding the whole file can find.
BROKEN_INSIDE = {
    "not a number": (
        lambda p: write(p.with_suffix(".wav"), np.r_[tone(), np.nan][1:], subtype="FLOAT"),
        "not finite numbers",
    ),
    "infinite": (
        lambda p: write(p.with_suffix(".wav"), np.r_[tone(), np.inf][1:], subtype="FLOAT"),
        "not finite numbers",
    ),
    "silence": (lambda p: write(p.with_suffix(".flac"), 0 * tone()), "silent audio"),
    "a FLAC with a hole": (
        lambda p: (
            p := write(p.with_suffix(".flac"), np.random.default_rng(1).uniform(-0.9, 0.9, RATE)),
            scrambled(p),
        )[0],
        ("unreadable audio", "truncated audio"),
    ),
}
BROKEN_ROWS = {
    "empty transcript": ({"wrds": ""}, "empty transcript"),
    "blank transcript": ({"wrds": " \t "}, "empty transcript"),
    "digits": ({"wrds": "LIGHT 42"}, "characters that the tokenizer does not know"),
    "another script": ({"wrds": "光を点けて"}, "characters that the tokenizer does not know"),
    "emoji": ({"wrds": "LIGHT 💡"}, "characters that the tokenizer does not know"),
    "too many labels": ({"wrds": "THE LIGHT " * 30}, "more labels than the audio has frames"),
    "zero duration": ({"duration": "0"}, "zero length"),
    "negative duration": ({"duration": "-1.0"}, "zero length"),
    "duration nan": ({"duration": "nan"}, "duration is not a number"),
    "duration inf": ({"duration": "inf"}, "duration is not a number"),
    "duration in words": ({"duration": "one second"}, "duration is not a number"),
    "no duration": ({"duration": ""}, "duration is not a number"),
    "absurd duration": ({"duration": "86400"}, "longer than max_duration"),
    "no id": ({"ID": ""}, "no id"),
    "no path": ({"wav": ""}, "no path of audio"),
    "duplicate id": ({"ID": "good-0"}, "duplicate id"),
    "a comma without quotes": ({"wrds": "LIGHT", "extra": "RADIO"}, "too many cells"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Folder, sound rows and tokenizer."""
    folder = tmp_path_factory.mktemp("good")
    rows = [
        Row(f"good-{i}", 1.0, str(write(folder / f"{i}.flac")), "spk", words)
        for i, words in enumerate(WORDS * 2)
    ]
    write_csv(folder / "train.csv", rows)
    return folder, rows, get_tokenizer(str(folder), 20, str(folder / "train.csv"))


def limits_of(tokenizer):
    return Limits(RATE, 20.0, tokenizer, lambda seconds: int(seconds * 100))


def manifest_with(path, rows, **changes):
    """The sound rows and, between them, one with the cells changed; "extra" is one cell more."""
    bad = {**vars(rows[1]), "ID": "bad", **changes}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, row in enumerate(rows):
            writer.writerow(vars(row).values())
            if i == 2:
                writer.writerow(bad.values())
    return path


def test_sound_data_has_no_fault(good):
    folder, rows, tokenizer = good
    report = check_manifest(folder / "train.csv", limits_of(tokenizer))
    assert report.rows == rows
    assert report.faults == []
    assert report.summary().endswith("8 of 8 utterances can be used, 0.00 hours")


@pytest.mark.parametrize("kind", BROKEN_ROWS)
def test_a_broken_row_is_found_and_the_others_are_kept(good, tmp_path, kind):
    _, rows, tokenizer = good
    changes, cause = BROKEN_ROWS[kind]
    path = manifest_with(tmp_path / "m.csv", rows, **changes)
    report = check_manifest(path, limits_of(tokenizer))
    (fault,) = report.faults
    assert cause in fault.cause
    assert fault.line == 5
    assert report.rows == rows
    assert f"8 of 9 utterances can be used, 0.00 hours; 1 left out: {fault.cause}" in (
        report.summary()
    )


@pytest.mark.parametrize("kind", {**BROKEN_AUDIO, **BROKEN_INSIDE})
def test_broken_audio_is_found_and_named(good, tmp_path, kind):
    _, rows, tokenizer = good
    make, causes = {**BROKEN_AUDIO, **BROKEN_INSIDE}[kind]
    broken = make(tmp_path / "broken")
    path = manifest_with(tmp_path / "m.csv", rows, wav=str(broken))
    report = check_manifest(path, limits_of(tokenizer))
    (fault,) = report.faults
    assert fault.id == "bad"
    assert any(cause in fault.cause for cause in np.atleast_1d(causes))
    assert str(broken) in fault.detail
    assert report.rows == rows
    # Headers and ends alone show all but what is inside.
    quick = check_manifest(path, limits_of(tokenizer), "ends").faults
    assert (quick == []) == (kind in BROKEN_INSIDE)
    if kind != "silence":
        with pytest.raises(DataError, match="broken"):
            read_samples(str(broken), 1.0, RATE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: name another, or prepare the data"),
        (b"", "no column 'ID'"),
        (b"ID;duration;wav;spk_id;wrds\na;1;b;c;d\n", "has semicolons between its cells"),
        (b"ID\tduration\twav\tspk_id\twrds\na\t1\tb\tc\td\n", "has tabs between its cells"),
        ("ID,duration,wav,spk_id,wrds\n".encode("utf-16"), "it is UTF-16.*: save it as UTF-8"),
        ("ID,duration,wav,spk_id,wrds\n".encode("utf-16-le"), "is UTF-16, .*: save it as UTF-8"),
        (b"ID,duration,wav,spk_id,wrds,wrds\n", "has 2 columns 'wrds': leave one"),
        (b'ID,duration,wav,spk_id,wrds\na,1.0,b,c,"D" E\n', "line 2: .*double the quotes"),
        (b"ID,duration,wav,spk_id,wrds\ra,1.0,b,c,D\r", "line 1: .*line ends between quotes"),
        (b"ID,duration,wav,spk_id\n", "no column 'wrds'"),
        (
            "ID,duration,wav,spk_id,wrds\na,1,b,c,é\n".encode("latin-1"),
            "is not UTF-8 text",
        ),
        (b"ID,duration,wav,spk_id,wrds\n", "no utterance can be used .the manifest is empty"),
        (b'ID,duration,wav,spk_id,wrds\na,1.0,"b,c\n', "line 2: unexpected end of data"),
    ],
)
def test_a_manifest_that_is_none_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "m.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        check_manifest(path, Limits()).require()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("times", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_bytes_as_a_manifest_give_a_report_or_one_line(good, tmp_path, times):
    """Fuzz: bytes of a sound manifest changed, cut, doubled or shuffled at random."""
    folder, _, tokenizer = good
    sound = (folder / "train.csv").read_bytes()
    rng = np.random.default_rng(0)
    outcomes = {"reports": 0, "refused": 0}
    for _ in range(times):
        content = bytearray(sound)
        for _ in range(rng.integers(1, 8)):
            start, length = rng.integers(len(content)), int(rng.integers(1, 30))
            piece = content[start : start + length]
            match rng.integers(4):
                case 0:
                    content[start : start + length] = rng.bytes(length)
                case 1:
                    del content[start : start + length]
                case 2:
                    content[start:start] = piece * 2
                case _:
                    content[start : start + length] = bytes(rng.choice(list(b',"\n\r\0$- 9'), 3))
        (tmp_path / "m.csv").write_bytes(bytes(content))
        try:
            report = check_manifest(tmp_path / "m.csv", limits_of(tokenizer), "none")
        except DataError:
            outcomes["refused"] += 1
        else:
            assert len({row.ID for row in report.rows}) == len(report.rows)
            assert all(0 < row.duration <= 20.0 for row in report.rows)
            outcomes["reports"] += 1
    assert min(outcomes.values()) > times / 10


# Rows that are no utterance at all; what is wrong with the others does not keep them from counting.
NO_UTTERANCE = {
    "empty transcript",
    "blank transcript",
    "no id",
    "duplicate id",
    "a comma without quotes",
}
# What limits training alone.
ONLY_FOR_TRAINING = {"digits", "another script", "emoji", "too many labels", "absurd duration"}


@pytest.mark.parametrize("kind", BROKEN_ROWS)
def test_to_be_evaluated_an_utterance_needs_an_id_and_a_transcript(good, tmp_path, kind):
    _, rows, tokenizer = good
    changes, cause = BROKEN_ROWS[kind]
    path = manifest_with(tmp_path / "m.csv", rows, **changes)
    report = check_manifest(path, limits_of(tokenizer), "none", purpose=EVALUATE)
    if kind in ONLY_FOR_TRAINING:
        assert [row.ID for row in report.rows if row not in rows] == ["bad"]
        assert report.all_faults == []
        return
    assert report.rows == rows
    if kind in NO_UTTERANCE:
        assert report.left_out == {report.faults[0].cause: 1}
        assert cause in report.faults[0].cause
        assert report.undecodable == []
    else:
        (lost,) = report.undecodable
        assert cause in lost.fault.cause
        assert lost.words == rows[1].wrds
        assert report.faults == []


@pytest.mark.parametrize("kind", {**BROKEN_AUDIO, **BROKEN_INSIDE})
def test_to_be_evaluated_audio_that_cannot_be_decoded_keeps_its_words(good, tmp_path, kind):
    _, rows, tokenizer = good
    make, causes = {**BROKEN_AUDIO, **BROKEN_INSIDE}[kind]
    path = manifest_with(tmp_path / "m.csv", rows, wav=str(make(tmp_path / "broken")))
    report = check_manifest(path, limits_of(tokenizer), purpose=EVALUATE)
    assert report.faults == []
    if kind == "silence":  # it can be decoded
        assert report.undecodable == []
        return
    (lost,) = report.undecodable
    assert lost.fault.id == "bad"
    assert lost.words == rows[1].wrds
    assert any(cause in lost.fault.cause for cause in np.atleast_1d(causes))
    assert (
        f"8 of 9 utterances can be decoded, 0.00 hours; 1 cannot be decoded, their words "
        f"count as deleted: {lost.fault.cause}" in report.summary()
    )
    with pytest.raises(DataError, match="line 5: bad"):
        report.require(strict=True)


def test_the_first_of_two_rows_with_an_id_is_the_first_that_is_an_utterance(tmp_path):
    rows = [Row("a", 1.0, "a.wav", "s", ""), Row("a", 2.0, "b.wav", "s", "ONE")]
    write_csv(tmp_path / "m.csv", [*rows, Row("a", 3.0, "c.wav", "s", "TWO")])
    report = check_manifest(tmp_path / "m.csv", Limits(), "none", purpose=EVALUATE)
    assert report.rows == [replace(rows[1], wav=str(tmp_path / "b.wav"))]
    assert report.left_out == {"empty transcript": 1, "duplicate id": 1}


def test_where_nothing_can_be_decoded_the_manifest_is_named(good, tmp_path):
    _, _, tokenizer = good
    write_csv(tmp_path / "test.csv", [Row("a", 1.0, "none.flac", "s", "ONE")])
    write_csv(tmp_path / "empty.csv", [])
    message = {"test": "can be decoded .missing file", "empty": "the manifest is empty"}
    for name, found in message.items():
        path = str(tmp_path / f"{name}.csv")
        with pytest.raises(DataError, match=rf"{name}\.csv: no utterance .*{found}"):
            make_dataset(path, tokenizer, lambda s: 100, purpose=EVALUATE)


def tokenizer_with(folder, **ids):
    """Characters of the transcripts, and other control pieces than usual."""
    prefix = folder / "other"
    options = {"bos_id": -1, "eos_id": -1, "pad_id": -1, "unk_id": 0, **ids}
    SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_prefix=str(prefix), model_type="char", **options
    )
    return f"{prefix}.model"


@pytest.mark.parametrize(
    "ids", [{"pad_id": 0, "unk_id": 2, "bos_id": 1}, {"bos_id": 0, "unk_id": 1}, {}]
)
def test_check_data_asks_the_tokenizer_for_its_unknown_id(good, tmp_path, capsys, ids):
    _, rows, _ = good
    path = str(manifest_with(tmp_path / "m.csv", rows, wrds="LIGHT 42"))
    assert main(["check-data", path, "--tokenizer", tokenizer_with(tmp_path, **ids)]) == OK
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("line 5: bad: transcript with characters that the tokenizer does not")
    assert len(out) == 2


def test_a_tokenizer_that_falls_back_to_bytes_knows_every_letter(good, tmp_path):
    _, rows, _ = good
    prefix = tmp_path / "bytes"
    SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_prefix=str(prefix),
        byte_fallback=True,
        vocab_size=290,
        bos_id=-1,
        eos_id=-1,
        hard_vocab_limit=False,
    )
    path = manifest_with(tmp_path / "m.csv", rows, wrds="光 42")
    limits = Limits(RATE, tokenizer=load_tokenizer(f"{prefix}.model"))
    assert check_manifest(path, limits, "none").faults == []


def test_check_data_judges_by_purpose(good, tmp_path, capsys):
    _, rows, _ = good
    path = str(manifest_with(tmp_path / "m.csv", rows, duration="86400", wav="none.flac"))
    assert main(["check-data", path]) == OK
    assert "1 left out: longer than max_duration" in capsys.readouterr().out
    assert main(["check-data", path, "--purpose", "evaluate"]) == OK
    assert "1 cannot be decoded, their words count as deleted: missing file" in (
        capsys.readouterr().out
    )
    assert main(["check-data", path, "--purpose", "evaluate", "--strict"]) == FAILED


def test_strict_refuses_a_single_fault_and_names_it(good, tmp_path):
    _, rows, tokenizer = good
    path = manifest_with(tmp_path / "m.csv", rows, wrds="")
    with pytest.raises(DataError, match=r"8 of 9 .* 1 left out: empty transcript.*line 5: bad"):
        make_dataset(str(path), tokenizer, lambda s: 100, strict=True)


def test_the_audio_is_not_opened_again_for_a_manifest_on_record(good, tmp_path, monkeypatch):
    _, rows, tokenizer = good
    path = manifest_with(tmp_path / "m.csv", rows, wav=str(tmp_path / "none.flac"))
    record = tmp_path / "faults.csv"
    first = check_manifest(path, limits_of(tokenizer), record=record)
    assert [fault.cause for fault in read_faults(record)] == ["missing file"]
    with monkeypatch.context() as patch:
        patch.setattr("todm_sb.dataio.check.audio_fault", lambda *a: pytest.fail("opened"))
        assert check_manifest(path, limits_of(tokenizer), record=record) == first
    # Audio that changes is looked at again,
    wav = tmp_path / "sound.flac"
    path = manifest_with(tmp_path / "m.csv", rows, wav=str(write(wav)))
    assert check_manifest(path, limits_of(tokenizer), record=record).faults == []
    for change, cause in [
        (lambda: shortened(wav, 0.5), "audio"),
        (lambda: write(wav), None),
        (lambda: wav.write_bytes(b""), "unreadable audio"),
        (lambda: wav.unlink(), "missing file"),
        (lambda: write(wav), None),
    ]:
        change()
        faults = check_manifest(path, limits_of(tokenizer), record=record).faults
        assert [fault.id for fault in faults] == ["bad"] * (cause is not None)
        assert all(cause in fault.cause for fault in faults)
    # and so is another manifest under the same name, or a record that somebody changed.
    record.write_text(record.read_text() + "5,good-1,silent audio,\n")
    assert check_manifest(path, limits_of(tokenizer), record=record).faults == []
    write_csv(path, rows[:3])
    assert check_manifest(path, limits_of(tokenizer), record=record).faults == []


def test_audio_that_breaks_after_the_check_is_left_out_of_its_batch_alone(good, tmp_path):
    _, rows, tokenizer = good
    rows = [
        Row(row.ID, 1.0, str(write(tmp_path / f"{i}.flac")), "s", row.wrds)
        for i, row in enumerate(rows)
    ]
    write_csv(tmp_path / "m.csv", rows)
    dataset = make_dataset(str(tmp_path / "m.csv"), tokenizer, lambda s: 100, sample_rate=RATE)
    options = make_loader_kwargs(dataset, 4.0, seed=1)
    planned = [[dataset.data_ids[i] for i in batch] for batch in options["batch_sampler"]][:2]
    assert len(planned[0]) > 1
    lost = [planned[0][1], *planned[1]]
    for row in rows:
        if row.ID in lost:
            open(row.wav, "w").close()

    batches = [
        options["collate_fn"]([dataset[dataset.data_ids.index(i)] for i in ids]) for ids in planned
    ]
    assert batches[0].id == [i for i in planned[0] if i not in lost]
    assert batches[0].sig.data.shape == (len(planned[0]) - 1, RATE)
    assert len(batches[0].words) == len(planned[0]) - 1
    assert batches[1].id == []
    assert [list(batch.broken) for batch in batches] == [lost[:1], lost[1:]]
    assert all("unreadable audio" in x for batch in batches for x in batch.broken.values())


def test_check_data_reports_and_is_strict_if_asked(good, tmp_path, capsys):
    folder, rows, _ = good
    path = manifest_with(tmp_path / "m.csv", rows, wav="none.flac")
    model = str(next(folder.glob("*.model")))
    command = ["check-data", str(path), "--tokenizer", model]
    assert main([*command, "--report", str(tmp_path / "faults.csv")]) == OK
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"line 5: bad: missing file ({tmp_path / 'none.flac'})"
    assert out[1].startswith(f"{path}: 8 of 9 utterances can be used")
    assert len(read_faults(tmp_path / "faults.csv")) == 1
    assert main([*command, "--strict"]) == FAILED
    assert main(["check-data", str(folder / "train.csv"), "--strict", "--quick"]) == OK


def test_a_report_replaces_an_earlier_one_and_nothing_else(good, tmp_path, capsys):
    folder, rows, _ = good
    path, report = manifest_with(tmp_path / "m.csv", rows, wav="none.flac"), tmp_path / "faults.csv"
    command = ["check-data", str(path), "--report", str(report)]
    assert main(command) == main(command) == OK
    assert len(read_faults(report)) == 1

    def is_refused():
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(command)
        out, err = capsys.readouterr()
        lacks = "was not written by this command: move it away, or name another file"
        return (out, err) == ("", f"error: --report {report} {lacks}\n")

    for content in (b"", b"my thesis", (folder / "train.csv").read_bytes()):
        report.write_bytes(content)
        assert is_refused()
        assert report.read_bytes() == content
    report.unlink()
    os.mkfifo(report)
    assert is_refused()
    assert report.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "manifest none.csv does not exist"),
        (["MANIFEST", "--tokenizer", "none"], "tokenizer none does not exist"),
        (["MANIFEST", "--tokenizer", "MANIFEST"], "is not a SentencePiece model"),
        (["MANIFEST", "--sample-rate", "8000"], "no utterance can be used .wrong sample rate"),
        (["MANIFEST", "--report", "MANIFEST"], "is the manifest itself: name another file"),
        (["MANIFEST", "--report", "no/such/folder"], "is no place for a file"),
        (["MANIFEST", "--threads", "0"], "must be at least 1, not 0"),
        (["MANIFEST", "--frame-shift", "0"], "must be above 0, not 0"),
        (["MANIFEST", "--frame-shift", "0.08"], "--frame-shift is of --tokenizer FILE"),
        (
            ["MANIFEST", "--purpose=evaluate", "--max-duration=30"],
            "--max-duration is no limit of what is evaluated",
        ),
        (
            ["MANIFEST", "--purpose=evaluate", "--tokenizer=x", "--frame-shift=0.08"],
            "--frame-shift is no limit of what is evaluated",
        ),
    ],
)
def test_check_data_ends_in_one_line_where_it_cannot_work(good, capsys, arguments, message):
    folder, _, _ = good
    manifest = str(folder / "train.csv")
    with pytest.raises(SystemExit) as ended:
        main(["check-data", *(manifest if x == "MANIFEST" else x for x in arguments)])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "error: " in err
    assert re.search(message, err)


def test_a_rounded_duration_is_no_fault(tmp_path):
    path = write(tmp_path / "a.flac", tone(1.234))
    assert audio_fault(str(path), 1.23, RATE) is None


def test_causes_are_logged_once_each_and_faults_on_request(good, tmp_path, caplog):
    _, rows, tokenizer = good
    path = manifest_with(tmp_path / "m.csv", rows, wrds="")
    with caplog.at_level(logging.DEBUG, logger="todm_sb"):
        make_dataset(str(path), tokenizer, lambda s: 100)
    levels = {r.levelname: r.getMessage() for r in caplog.records if "m.csv" in r.getMessage()}
    assert levels["WARNING"].endswith("1 left out: empty transcript")
    assert levels["DEBUG"].endswith("line 5: bad: empty transcript")
