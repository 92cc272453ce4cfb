"""What is chosen is what has the lowest error rate on dev, whatever the test says."""

import json
import sys

import pytest

from todm_sb.experiments.compare.cells import Cell, Runs
from todm_sb.experiments.compare.runner import run_cells
from todm_sb.experiments.compare.tuning import Tuning, dev_error_rate
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.recipe import Recipe
from todm_sb.utils.errors import ConfigError, DataError

# Stands for a training: a rate of 0.2 is the best on dev, in its last epoch, and worst on test. The
# first epoch measures max alone.
SCRIPT = """
import json, pathlib, sys
options = dict(a[2:].split("=", 1) for a in sys.argv[2:] if "=" in a)
folder, lr = pathlib.Path(options["output_folder"]), float(options.get("lr", 0.1))
(folder / "hyperparams.yaml").touch()
epochs = [{"WER max": 9}, {"WER max": 50, "WER min": 60}]
epochs += [{"WER max": 10 + 100 * abs(lr - 0.2), "WER min": 40}]
lines = [json.dumps({"epoch": i, "valid": {"loss": 1, **x}}) for i, x in enumerate(epochs, 1)]
(folder / "history.jsonl").write_text("\\n".join(lines) + "\\n")
for name in ("cost", "errors_test", "results_test"):
    (folder / f"{name}.json").write_text(json.dumps(0.3 - abs(lr - 0.2)))
"""


@pytest.fixture
def runs(tmp_path):
    yaml = "seed: 0\noutput_folder: x\nmanifests: x\ntokenizer_folder: x\nlr: 0.1\n"
    (tmp_path / "recipe.yaml").write_text(yaml)
    (tmp_path / "train.py").write_text(SCRIPT)
    program = [sys.executable, str(tmp_path / "train.py")]
    return Runs(tmp_path / "results", Recipe(tmp_path / "recipe.yaml"), program=program)


TRIALS = tuple(Cell(f"trial-{lr}", 1, {"lr": lr}) for lr in ("0.1", "0.2", "0.3"))
TUNING = Tuning("tuned", TRIALS, lambda best: {"other": {**best.overrides, "seed": "5"}})


def test_nothing_follows_before_all_trials_are_finished(runs):
    run_cells(runs, TRIALS[:2], progressbar=False)
    assert TUNING.best(runs) is None
    assert TUNING.cells(runs, [("", 1), ("", 2)]) == []
    assert TUNING.to_dict(runs) == {"dev WER": {"trial-0.1": 30, "trial-0.2": 25}, "chosen": None}


def test_the_best_on_dev_stands_for_all_and_is_not_run_again(runs):
    run_cells(runs, TRIALS, progressbar=False)
    assert TUNING.best(runs) is TRIALS[1]
    cells = TUNING.cells(runs, [("", 1), ("", 2)])
    assert [cell.id for cell in cells] == ["trial-0.2/1", "other/1", "tuned/2", "other/2"]
    assert [cell.name for cell in cells] == ["tuned", "other", "tuned", "other"]
    assert {cell.overrides["lr"] for cell in cells} == {"0.2"}
    assert cells[1].overrides["seed"] == "5"


def test_of_equals_the_first_is_chosen(runs):
    run_cells(runs, TRIALS, progressbar=False)
    two = TRIALS[0], TRIALS[2]
    for trial in two:
        record = {"epoch": 1, "valid": {"WER max": 7.0}}
        TrainingHistory(runs.folder(trial)).write([record])
    assert Tuning("tuned", two).best(runs) is two[0]


def measured(folder, *epochs):
    """Writes a history of epochs, each an error rate and the dev set that it is of."""
    records = [
        {"epoch": i, "valid": {"WER max": wer}, **({"wer_of": {"dev_set": name}} if name else {})}
        for i, (wer, name) in enumerate(epochs, start=1)
    ]
    TrainingHistory(folder).write(records)


@pytest.mark.parametrize("before", ["easy", None])
def test_an_error_rate_of_another_dev_set_than_the_last_does_not_count(tmp_path, before):
    measured(tmp_path, (10.0, before), (50.0, "new"), (60.0, "new"))
    assert dev_error_rate(tmp_path) == 50


def test_of_trials_on_different_dev_sets_none_is_chosen(runs):
    run_cells(runs, TRIALS, progressbar=False)
    measured(runs.folder(TRIALS[0]), (7.0, "old"), (6.0, "new"))
    measured(runs.folder(TRIALS[2]), (3.0, "old"))
    # What does not tell its dev set, as the second trial here, is no reason to refuse.
    assert Tuning("tuned", TRIALS[:2]).best(runs) is TRIALS[0]
    message = r"trial-0\.1/1 and \S+trial-0\.3/1 were measured on different dev sets: delete"
    with pytest.raises(ConfigError, match=message):
        TUNING.best(runs)


def test_a_run_without_error_rates_on_dev_is_told(tmp_path):
    (tmp_path / "history.jsonl").write_text(json.dumps({"epoch": 1, "valid": {"loss": 1}}) + "\n")
    with pytest.raises(DataError, match="has no error rates on dev: delete it"):
        dev_error_rate(tmp_path)
