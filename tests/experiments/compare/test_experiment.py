"""A whole comparison: trials, the choice on dev, what follows from it, and the same elsewhere."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text
from test_tuning import SCRIPT

from todm_sb.cli.compare import show
from todm_sb.experiments.compare import experiment as module
from todm_sb.experiments.compare.cells import Runs, State
from todm_sb.experiments.compare.experiment import Experiment
from todm_sb.experiments.compare.plan import CellPlan
from todm_sb.experiments.compare.sizes import Size
from todm_sb.space import SearchSpace
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.recipe import Recipe
from todm_sb.utils.errors import ConfigError

RECIPE = """
seed: 0
output_folder: x
manifests: x
tokenizer_folder: x
data: x
train_csv: !ref <manifests>/train.csv
lr: 0.1
max_grad_norm: 1.0
opt_class: x
n_random: 1
named_subnets: null
search_space: {n_layers: 2, min_layers: 1, ffn_dims: [16, 32]}
model: {encoder: {dropout: 0.1, adaptive_dropout: true}, predictor: {dropout: 0.1}}
objective: {kd_weight: 1.0, divergence: {alphas: [-1, 1], classes: vocabulary}}
"""
SPACE = SearchSpace(2, 1, ffn_dims=(16, 32))
SIZES = [Size(SPACE.min, 1), Size(SPACE.max, 2)]
PLAN = CellPlan(SIZES, [], 1, (0.1, 0.2), rate=0.1, dropouts=(0.1, 0.1), tuned=SIZES[0])
FOLDS = [("a", 1), ("b", 1)]


@pytest.fixture
def make(tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "train.py").write_text(SCRIPT)
    prepared = []
    monkeypatch.setattr(module, "prepare_data", lambda runs, cell: prepared.append(cell.run))

    def make(folder, patterns, wanted=FOLDS, archive=None):
        recipe = Recipe(tmp_path / "recipe.yaml", {"data": Text("{fold}")})
        program = [sys.executable, str(tmp_path / "train.py")]
        runs = Runs(tmp_path / folder, recipe, program=program)
        return Experiment(runs, PLAN, wanted, patterns, archive)

    make.prepared = prepared
    return make


def listed(experiment, capsys):
    """States that a dry run tells, by the names of cells."""
    show(experiment, {}, SimpleNamespace(step=None))
    return dict(reversed(line.split()) for line in capsys.readouterr().out.splitlines())


def finished(experiment):
    """The ids of the cells that are there."""
    paths = experiment.runs.root.glob("*/*/options.json")
    return {f"{path.parts[-3]}/{path.parts[-2]}" for path in paths}


def test_trials_are_run_in_the_first_fold_and_what_they_decide_in_all(make, tmp_path, capsys):
    kept = tmp_path / "kept"
    patterns = ["supernet", "tuned-*", "ablation-adamw", "ablation-plain"]
    experiment = make("here", patterns, archive=kept)
    experiment.run(jobs=2, progressbar=False)
    grid = [f"lr{rate}-dropout{x}" for rate in ("1", "0.5", "1.5", "2") for x in (1, 2)][1:]
    ids = finished(experiment)
    assert ids == {
        "supernet/a-1",
        "supernet/b-1",
        "trial-adamw-0.1/a-1",
        "trial-adamw-0.2/a-1",
        "individual-1x16/a-1",
        *(f"trial-1x16-{name}/a-1" for name in grid),
        # Of the first fold the trials themselves.
        "ablation-adamw/b-1",
        "ablation-plain/a-1",
        "ablation-plain/b-1",
        "tuned-1x16/b-1",
    }
    options = {
        name: json.loads((experiment.runs.root / name / "options.json").read_text())
        for name in ("ablation-adamw/b-1", "ablation-plain/a-1", "tuned-1x16/b-1")
    }
    assert {x["lr"] for x in options.values()} == {"0.2"}
    assert [x["data"] for x in options.values()] == ["b", "a", "b"]
    assert options["tuned-1x16/b-1"]["search_space.n_layers"] == "1"

    assert make.prepared == ["a-1", "b-1"]
    assert listed(experiment, capsys) == dict.fromkeys(ids, "finished")

    there = make("there", ["tuned-*"], archive=kept)
    known = dict.fromkeys([cell.id for cell in there.chosen], "finished")
    # For the trials to be restored.
    waiting = {**known, "tuned-1x16/b-1": "waits"}
    assert listed(there, capsys) == waiting
    assert not there.runs.root.exists()
    there.restore()
    assert finished(there) == ids
    assert all(there.runs.state(cell) is State.FINISHED for cell in there.chosen)
    there.run(progressbar=False)
    assert not list(there.runs.root.rglob("output.txt"))  # nothing was started
    assert make.prepared == ["a-1", "b-1"]  # nor prepared: no data are needed here
    shutil.rmtree(there.runs.root / "tuned-1x16/b-1")
    assert listed(there, capsys) == {**known, "tuned-1x16/b-1": "finished"}
    there.archive = None
    assert listed(there, capsys) == {**known, "tuned-1x16/b-1": "new"}
    there.run(progressbar=False)
    assert make.prepared == ["a-1", "b-1", "b-1"]


def test_trials_are_of_the_run_that_has_them_else_of_the_first_that_is_asked_for(make, tmp_path):
    def tried(*args):
        return {cell.run for x in make(*args).tunings for cell in x.trials}

    folds = [("fold-2", 1), ("fold-10", 1)]
    assert tried("here", ["supernet"], folds) == {"fold-2-1"}
    make("here", ["ablation-adamw"], [("b", 2)], tmp_path / "kept").run(progressbar=False)
    for wanted in ([("b", 1), ("b", 2)], [("a", 1)]):
        assert tried("here", ["supernet"], wanted) == {"b-2"}
        assert tried("there", ["supernet"], wanted, tmp_path / "kept") == {"b-2"}
        assert tried("there", ["supernet"], wanted) == {"{}-{}".format(*wanted[0])}


def write_manifest(runs, run, transcript):
    """What preparation makes of a corpus of one utterance."""
    manifest = runs.root / "data" / run / "manifests" / "train.csv"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(f"ID,duration,wav,wrds\nu1,1.0,u1.wav,{transcript}\n")


def test_data_that_are_prepared_anew_and_differ_are_told_before_anything_runs(make, monkeypatch):
    transcripts = ["ONE", "TWO"]

    def prepare(runs, cell):
        write_manifest(runs, cell.run, transcripts[0])

    monkeypatch.setattr(module, "prepare_data", prepare)
    one = [("a", 1)]
    make("here", ["supernet"], one).run(progressbar=False)
    del transcripts[0]
    second = make("here", ["individual-*"], one)
    second.check()
    with pytest.raises(ConfigError, match=r"supernet/a-1 was run .*train_csv has other ids"):
        second.run(progressbar=False)
    assert finished(second) == {"supernet/a-1"}


def test_no_table_is_made_of_cells_between_which_the_data_changed(make, monkeypatch):
    experiment = make("here", ["supernet", "individual-2x32"], [("a", 1)])
    write_manifest(experiment.runs, "a-1", "ONE")
    keep = experiment.keep

    def keep_and_change(cells):
        keep(cells)
        write_manifest(experiment.runs, "a-1", "TWO")

    monkeypatch.setattr(experiment, "keep", keep_and_change)
    experiment.run(progressbar=False)
    with pytest.raises(ConfigError, match=r"supernet/a-1 was run .*train_csv has other ids"):
        experiment.tables()


def test_cells_that_were_measured_on_different_dev_sets_are_not_compared(make):
    experiment = make("here", ["supernet", "individual-2x32"])
    experiment.run(progressbar=False)

    def measure(cell, dev_set):
        record = {
            "epoch": 1,
            "train": {},
            "valid": {"WER max": 5.0},
            "wer_of": {"dev_set": dev_set},
        }
        TrainingHistory(experiment.runs.root / cell).write([record])

    measure("supernet/a-1", "first")
    measure("supernet/b-1", "second")  # each fold has its own
    measure("individual-2x32/a-1", "first")
    experiment.check()
    measure("individual-2x32/a-1", "second")
    message = r"supernet/a-1 and \S+individual-2x32/a-1 were measured on different dev sets: delete"
    with pytest.raises(ConfigError, match=message):
        experiment.check()


def test_an_archive_that_cannot_be_written_costs_no_cell(make, tmp_path, caplog):
    (tmp_path / "kept").write_text("mine")
    experiment = make("here", ["supernet"], archive=tmp_path / "kept")
    with pytest.raises(ConfigError, match=r"kept cannot be a folder .*: give another"):
        experiment.restore()
    assert finished(experiment) == set()
    experiment.run(progressbar=False)  # it became one on the way
    assert finished(experiment) == {"supernet/a-1", "supernet/b-1"}
    assert "supernet/a-1 is not archived yet" in caplog.text


def test_without_its_trials_nothing_follows(make):
    experiment = make("here", ["ablation-plain"], [("b", 1)])
    assert [cell.id for cell in experiment.chosen] == ["trial-adamw-0.1/b-1", "trial-adamw-0.2/b-1"]
    assert experiment.settled() == []
    assert [cell.id for cell in experiment.awaited()] == ["ablation-plain/b-1"]
