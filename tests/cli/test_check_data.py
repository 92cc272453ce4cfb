import os
import threading

import numpy as np
import soundfile

from todm_sb.cli import OK, main
from todm_sb.dataio.manifest import Row, write_csv


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
