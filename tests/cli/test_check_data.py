import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from todm_sb.cli import OK, main
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.tokenizer import get_tokenizer


def test_a_manifest_may_come_from_a_pipe(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(16000)), 16000)
    write_csv(tmp_path / "train.csv", [Row("a", 1.0, str(tmp_path / "a.wav"), "s", "ONE TWO")])
    assert main(["check-data", str(tmp_path / "train.csv"), "--strict"]) == OK
    expected = capsys.readouterr().out
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = (tmp_path / "train.csv").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert main(["check-data", str(pipe), "--strict"]) == OK
    writer.join()
    assert capsys.readouterr().out == expected.replace("train.csv", "pipe")


def test_a_tokenizer_may_come_from_a_pipe_and_a_home_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(np.arange(16000)), 16000)
    rows = [Row("a", 1.0, str(tmp_path / "a.wav"), "s", "ONE TWO")]
    write_csv(tmp_path / "train.csv", rows)
    get_tokenizer(str(tmp_path), 7, str(tmp_path / "train.csv"), "char")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = (tmp_path / "7_char.model").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    write_csv(tmp_path / "test.csv", [*rows, replace(rows[0], ID="b", wrds="ONE X")])
    command = ["check-data", "~/test.csv", f"--tokenizer={pipe}", "--report=~/faults.csv"]
    assert main(command) == OK
    writer.join()
    (fault,) = (tmp_path / "faults.csv").read_text().splitlines()[1:]
    assert "characters that the tokenizer does not know" in fault
    for name in ("none", ""):
        with pytest.raises(SystemExit):
            main(["check-data", "~/test.csv", f"--tokenizer=~/{name}"])
        assert capsys.readouterr().err.startswith(f"error: tokenizer {tmp_path}")
