"""The command's own work: what it writes whatever becomes of the cells."""

from pathlib import Path

import pytest

from todm_sb.cli import compare
from todm_sb.utils.errors import ConfigError

ROOT = Path(__file__).parents[3]
MINI = ROOT / "recipes" / "LibriSpeech" / "todm" / "hparams" / "mini.yaml"
TABLE = ROOT / "benchmarks" / "results" / "table"


def test_tables_are_written_though_the_archive_cannot_be(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("todm_sb.experiments.compare.experiment.run_cells", lambda *_: None)
    monkeypatch.setattr("todm_sb.experiments.compare.experiment.prepare_data", lambda *_: None)
    monkeypatch.setattr(compare.Experiment, "keep", full)
    with pytest.raises(OSError, match="No space left"):
        compare.main([str(MINI), f"--output_folder={tmp_path / 'out'}"])
    assert {path.name for path in (tmp_path / "out").glob("comparison.*")} == set(compare.FILES)


def test_the_archive_is_kept_though_no_table_can_be_made(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("todm_sb.experiments.compare.experiment.run_cells", lambda *_: None)
    monkeypatch.setattr("todm_sb.experiments.compare.experiment.prepare_data", lambda *_: None)
    monkeypatch.setattr(compare.Experiment, "keep", lambda self: kept.append(self))
    (tmp_path / "comparison.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"comparison\.md was not written by this command"):
        compare.main([str(MINI), f"--output_folder={tmp_path}"])
    assert kept == []  # before anything is run
    monkeypatch.setattr(compare, "check_own", lambda *_: None)
    with pytest.raises(ConfigError, match=r"comparison\.md was not written by this command"):
        compare.main([str(MINI), f"--output_folder={tmp_path}"])
    assert len(kept) == 1


def test_the_shipped_table_goes_on_from_its_archive(capsys):
    argv = [
        *(str(MINI.with_name("mini_librispeech_table.yaml")), "--data_folder=/data/{fold}"),
        *("--folds=fold-1,fold-2,fold-3", "--sizes=named", "--tune=4x384", "--dry-run"),
        "--adamw_lr=0.0005,0.001,0.002,0.004,0.008",
        *("--cells=supernet,individual-*,tuned-*,ablation-adamw", f"--archive={TABLE}"),
    ]
    assert compare.main(argv) == 0
    lines = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    states = {name: state for state, name in lines}
    # A choice among trials is made when they are restored.
    assert {name.split("/")[0] for name in states if states[name] != "finished"} <= {
        "tuned-4x384",
        "ablation-adamw",
    }
    assert sum(state == "finished" for state in states.values()) >= 12 + 7 + 5
