"""What ``benchmarks/results`` keeps is still what its commands are of."""

from pathlib import Path

from todm_sb.cli import main

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "recipes/LibriSpeech/todm/hparams/mini_librispeech_table.yaml"


def test_the_archived_cells_of_the_table_fit_its_recipe(tmp_path, capsys):
    data = "--data_folder=/data/{fold}", "--folds=fold-1,fold-2,fold-3"
    archive = f"--archive={ROOT / 'benchmarks/results/table'}"
    asked = "--sizes=named", "--cells=supernet,individual-*", f"--output_folder={tmp_path / 'new'}"
    assert main(["compare", str(TABLE), *data, *asked, archive, "--dry-run"]) == 0
    states = [line.split() for line in capsys.readouterr().out.splitlines() if "/fold-" in line]
    assert len(states) == 12
    assert {state for state, _ in states} == {"finished"}
