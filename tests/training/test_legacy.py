"""Runs that the first version made are loaded, and their recipes mean what they meant."""

from pathlib import Path

from todm_sb.nnet.encoders import check_space
from todm_sb.training.runs import load_hparams

# As version 0.1 wrote it, at commit 909ff9d.
WRITTEN = Path(__file__).parent / "data" / "hyperparams-0.1.yaml"


def test_the_recipe_of_an_old_run_builds_its_network(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    text = WRITTEN.read_text(encoding="utf-8").replace("PLACE", str(tmp_path))
    (run / "hyperparams.yaml").write_text(text, encoding="utf-8")
    hparams = load_hparams(run)
    encoder = hparams["model"].encoder
    check_space(hparams["space"], encoder)
    assert encoder.kind == "mhssm"
    assert encoder.dimensions == {"ffn_dims": (32, 32), "n_heads": (4, 4)}
    assert Path(hparams["checkpointer"].checkpoints_dir) == run / "save"
