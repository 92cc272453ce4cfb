import json

import pytest

from todm_sb.cli import OK, main
from todm_sb.inference import onnx_latency
from todm_sb.search.probes import read_table


def test_a_table_replaces_an_earlier_one_and_nothing_else(tmp_path, monkeypatch, capsys):
    timed = []

    def time_folders(folders, *_):
        timed.append(folders)
        return [0.5 * len(timed)]

    monkeypatch.setattr(onnx_latency, "time_folders", time_folders)
    out = tmp_path / "table.json"
    command = ["latency", str(tmp_path), "--out", str(out)]
    assert main(command) == main(command) == OK
    assert [m["latency"] for m in read_table(out)["measured"]] == [1.0]
    for content in ("", "my thesis", "[1]", json.dumps({"format": "mine"})):
        out.write_text(content)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(command)
        assert capsys.readouterr().err == (
            f"error: --out {out} was not written by this command: move it away, or name another "
            "file\n"
        )
        assert out.read_text() == content
    assert len(timed) == 2
