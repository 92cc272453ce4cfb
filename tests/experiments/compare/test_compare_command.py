"""The command's own work: what it writes whatever becomes of the cells."""

from pathlib import Path

import pytest

from todm_sb.cli import compare

MINI = Path(__file__).parents[3] / "recipes" / "LibriSpeech" / "todm" / "hparams" / "mini.yaml"


def test_tables_are_written_though_the_archive_cannot_be(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("todm_sb.experiments.compare.experiment.run_cells", lambda *_: None)
    monkeypatch.setattr("todm_sb.experiments.compare.experiment.prepare_data", lambda *_: None)
    monkeypatch.setattr(compare.Experiment, "keep", full)
    with pytest.raises(OSError, match="No space left"):
        compare.main([str(MINI), f"--output_folder={tmp_path / 'out'}"])
    assert {path.name for path in (tmp_path / "out").glob("comparison.*")} == set(compare.FILES)
