"""``todm-sb manifest``: of a folder of audio and texts."""

import os
import shutil

import numpy as np
import pytest
import soundfile

from todm_sb.cli import FAILED, OK, main
from todm_sb.dataio.manifest import Row, read_csv
from todm_sb.dataio.reading import read_lines


def write(path, text="ONE TWO", seconds=1.0, rate=48000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones((int(seconds * rate), 2)), rate)
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "audio" / "b.WAV", "  Öffne\r\ndie   Tür\n")
    write(tmp_path / "audio" / "anna" / "x" / "1.flac", "打开门", 0.5, 44100)
    write(tmp_path / "audio" / ".hidden" / "c.wav")
    write(tmp_path / "audio" / ".d.wav")
    return tmp_path / "audio"


def test_a_folder_becomes_a_manifest_that_can_move_with_it(folder, tmp_path, capsys):
    manifest = tmp_path / "train.csv"
    assert main(["manifest", str(folder), str(manifest)]) == OK
    assert capsys.readouterr().out == f"{manifest}: 2 utterances, 0.00 hours\n"
    assert read_csv(manifest) == [
        Row("anna/x/1", 0.5, "audio/anna/x/1.flac", "anna/x", "打开门"),
        Row("b", 1.0, "audio/b.WAV", "", "Öffne die Tür"),
    ]
    shutil.copytree(tmp_path, tmp_path.with_name("moved"))
    shutil.rmtree(folder)
    moved = tmp_path.with_name("moved") / "train.csv"
    check = ["check-data", str(moved), "--strict"]
    assert main([*check, "--resample", "--mixdown"]) == OK
    with pytest.raises(SystemExit):
        main(check)
    assert "no utterance can be used (wrong sample rate)" in capsys.readouterr().err


def test_elsewhere_the_paths_are_absolute_and_links_are_followed_once(
    folder, tmp_path, monkeypatch
):
    (folder / "loop").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere" / "e.ogg")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["manifest", "audio", "out/m.csv"]) == OK
    assert [cells["wav"] for _, cells in read_lines(tmp_path / "out" / "m.csv")] == [
        str(folder / "anna/x/1.flac"),
        str(folder / "b.WAV"),
        str(folder / "linked/e.ogg"),
    ]


def unreadable(folder):
    write(folder / "a.wav").write_bytes(b"no audio")


FAULTS = {
    "audio without text": lambda folder: write(folder / "a.wav", None),
    "text without audio": lambda folder: (folder / "a.txt").write_text("ONE"),
    "empty transcript": lambda folder: write(folder / "a.wav", " \n"),
    "unreadable text": lambda folder: (
        write(folder / "a.wav").with_suffix(".txt").write_bytes(b"\xff")
    ),
    "unreadable audio": unreadable,
    "zero length": lambda folder: write(folder / "a.wav", seconds=0),
    "audio of a name that another has": lambda folder: (
        write(folder / "a.wav"),
        (folder / "a.flac").write_bytes(b""),
        (folder / "a.txt").unlink(),
        (folder / "a.txt").write_text("ONE"),
    ),
    "name that is no text": lambda folder: os.rename(
        write(folder / "a.wav"), os.fsencode(folder) + b"/a\xff.wav"
    ),
}


@pytest.mark.parametrize("cause", FAULTS)
def test_what_is_no_utterance_is_left_out_and_told(folder, tmp_path, capsys, cause):
    FAULTS[cause](folder)
    assert main(["manifest", str(folder), str(tmp_path / "m.csv")]) == FAILED
    captured = capsys.readouterr()
    assert f": {cause} (" in captured.err
    assert [row.ID for row in read_csv(tmp_path / "m.csv")] == ["anna/x/1", "b"]
    assert "files left out" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "m.csv"], "folder none is not there"),
        (["audio", "m.json"], "what is written is CSV"),
        (["audio", "no/m.csv"], "is no place for a file"),
        (["audio", "there.csv"], "is there already: name another file, or add --force"),
        (["empty", "m.csv"], "holds no utterance: it takes audio files with a text beside each"),
        (["audio", "m.csv", "--text-suffix=txt"], "must begin with a dot"),
        (["audio", "m.csv", "--text-suffix=.lab"], "such as a.wav and a.lab"),
    ],
)
def test_what_cannot_work_is_one_line_and_writes_nothing(
    folder, tmp_path, monkeypatch, refusal, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    error = refusal(["manifest", *arguments])
    assert error.startswith("error: ")
    assert message in error
    assert sorted(os.listdir(tmp_path)) == ["audio", "empty", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_manifest_is_replaced_where_that_is_asked_for(folder, tmp_path):
    (tmp_path / "m.csv").write_text("mine")
    assert main(["manifest", str(folder), str(tmp_path / "m.csv"), "--force"]) == OK
    assert len(read_csv(tmp_path / "m.csv")) == 2
