"""Runs that the first version made are loaded, and their recipes mean what they meant."""

from pathlib import Path

from todm_sb.nnet.encoders import check_space
from todm_sb.supernet.schedule import Schedule
from todm_sb.training.pace import Pace, pace_of
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
    # A step was a batch of Eden and of the warm-ups.
    assert pace_of(hparams, hparams["grad_accumulation_factor"], 8) == Pace(1, 1.0)


def test_what_was_counted_in_steps_is_counted_in_batches(tmp_path):
    old = """
weight: !new:todm_sb.supernet.schedule.Schedule {start: 1.0, end: 0.3, first_step: 5, last_step: 9}
pruning: &id001 !new:todm_sb.losses.pruning.Pruning
  s_range: 5
  warmup_steps: 200
objective: !new:todm_sb.supernet.objective.Objective
  kd_weight: !new:todm_sb.supernet.schedule.Schedule
    start: 0.0
    end: 2.0
    last_step: 7
  pruning: *id001
last_step: 3
output_folder: x
"""
    (tmp_path / "hyperparams.yaml").write_text(old, encoding="utf-8")
    hparams = load_hparams(tmp_path)
    assert hparams["weight"] == Schedule(1.0, 0.3, 5, 9)
    assert hparams["objective"].kd_weight == Schedule(0.0, 2.0, 0, 7)
    assert hparams["objective"].pruning.warmup_batches == 200
    assert hparams["last_step"] == 3
