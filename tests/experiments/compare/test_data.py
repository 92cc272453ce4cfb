"""A cell counts as finished as long as the data are those that it was trained and measured on."""

import json
import os
import sys

import pytest

from todm_sb.experiments.compare import data
from todm_sb.experiments.compare.archive import archive_cells, restore_cells
from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.experiments.compare.runner import run_cells
from todm_sb.training.recipe import Recipe, yaml_of
from todm_sb.utils.errors import ConfigError, DataError

RECIPE = """
seed: 0
output_folder: !ref results/<seed>
manifests: !ref <output_folder>/manifests
tokenizer_folder: !ref <output_folder>/tokenizer
data_folder: null
text_column: null
train_csv: train.csv
valid_csv: dev.csv
test_csvs: test.csv
test_splits: []
"""

# Stands for train.py, which refuses data before it begins.
SCRIPT = """
import pathlib, sys
options = dict(a[2:].split("=", 1) for a in sys.argv[2:] if "=" in a)
folder = pathlib.Path(options["output_folder"])
if "FAULT" in pathlib.Path(options["train_csv"]).read_text():
    sys.exit("error: a fault")
for name in ("hyperparams.yaml", "cost.json", "errors_test.json", "results_test.json"):
    (folder / name).write_text("{}")
"""

MANIFEST = """ID,duration,wav,spk_id,wrds
u1,1.5,/data/u1.wav,ann,ONE
u2,2.5,/data/u2.wav,bob,ONE TWO
"""
SETS = {"train": "train_csv", "dev": "valid_csv", "test": "test set test"}
A, B = Cell("a", 1, {}), Cell("b", 1, {})


@pytest.fixture
def make_runs(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "train.py").write_text(SCRIPT)
    for name in SETS:
        (tmp_path / f"{name}.csv").write_text(MANIFEST)

    def make(folder="results", **overrides):
        places = {f"{x}_csv{'s' * (x == 'test')}": f"{tmp_path}/{x}.csv" for x in ("train", "test")}
        given = {**places, "valid_csv": f"{tmp_path}/dev.csv", **overrides}
        recipe = Recipe(tmp_path / "recipe.yaml", yaml_of().load(json.dumps(given)))
        return Runs(tmp_path / folder, recipe, program=[sys.executable, str(tmp_path / "train.py")])

    return make


def change(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("u2,", "u3,", "ids, durations or transcripts"),
        ("2.5", "2.6", "ids, durations or transcripts"),
        ("TWO", "TOO", "ids, durations or transcripts"),
        ("u2,2.5,/data/u2.wav,bob,ONE TWO\n", "", "ids, durations or transcripts"),
        ("/data", "/noisy", "paths of audio"),
    ],
)
def test_cells_of_other_data_are_refused_before_anything_runs(
    make_runs, tmp_path, name, old, new, what
):
    runs = make_runs()
    run_cells(runs, [A], progressbar=False)
    assert runs.state(A) is State.FINISHED
    change(tmp_path / f"{name}.csv", old, new)
    assert runs.state(A) is make_runs().state(A) is State.OTHER_OPTIONS
    message = rf"a/1 was run .*\({SETS[name]} has other {what} now: put back .*\): give .* delete"
    with pytest.raises(ConfigError, match=message):
        run_cells(make_runs(), [B, A], progressbar=False)
    assert not runs.folder(B).exists()


def test_who_puts_the_data_back_has_the_cell_back(make_runs, tmp_path):
    run_cells(make_runs(), [A], progressbar=False)
    change(tmp_path / "train.csv", "TWO", "TOO")
    change(tmp_path / "train.csv", "TOO", "TWO")
    assert make_runs().state(A) is State.FINISHED


def test_order_spaces_and_speakers_of_a_manifest_make_no_other_data(make_runs, tmp_path):
    run_cells(make_runs(), [A], progressbar=False)
    header, *lines = MANIFEST.replace("bob", "eve").replace("ONE TWO", "ONE  TWO").splitlines()
    (tmp_path / "train.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    assert make_runs().state(A) is State.FINISHED


def test_what_a_cell_did_not_record_is_not_compared(make_runs, tmp_path):
    run_cells(make_runs(), [A], progressbar=False)
    (make_runs().folder(A) / data.DATA_FILE).unlink()  # a cell of an earlier version
    change(tmp_path / "train.csv", "TWO", "TOO")
    assert make_runs().state(A) is State.FINISHED


def test_data_that_are_not_there_are_not_compared(make_runs, tmp_path):
    run_cells(make_runs(), [A], progressbar=False)
    for name in SETS:
        (tmp_path / f"{name}.csv").unlink()
    runs = make_runs()
    assert runs.data(A) == {}
    assert (runs.state(A), runs.state(B)) == (State.FINISHED, State.NEW)


def test_data_that_stopped_a_cell_before_it_began_may_be_mended(make_runs, tmp_path):
    change(tmp_path / "train.csv", "TWO", "FAULT")
    with pytest.raises(ConfigError, match="error: a fault"):
        run_cells(make_runs(), [A], progressbar=False)
    change(tmp_path / "train.csv", "FAULT", "TWO")
    run_cells(make_runs(), [A], progressbar=False)
    assert make_runs().state(A) is State.FINISHED
    change(tmp_path / "train.csv", "TWO", "TOO")
    assert make_runs().state(A) is State.OTHER_OPTIONS


def test_a_cell_that_was_broken_off_does_not_go_on_with_other_data(make_runs, tmp_path):
    runs = make_runs()
    run_cells(runs, [A], progressbar=False)
    (runs.folder(A) / "cost.json").unlink()
    assert runs.state(A) is State.UNFINISHED
    change(tmp_path / "train.csv", "TWO", "TOO")
    assert runs.start(A, os.environ) is None


def test_prepared_manifests_tell_what_is_said_and_not_where_it_lies(make_runs, tmp_path):
    runs = make_runs(test_csvs=None, test_splits=["test"])
    manifest = tmp_path / "results/data/1/manifests/test.csv"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(MANIFEST)
    run_cells(runs, [A], progressbar=False)
    (tmp_path / "results").rename(tmp_path / "moved")
    manifest = tmp_path / "moved/data/1/manifests/test.csv"
    moved = make_runs("moved", test_csvs=None, test_splits=["test"])
    change(manifest, "/data", "/data/moved")
    assert moved.state(A) is State.FINISHED
    change(manifest, "TWO", "TOO")
    assert moved.state(A) is State.OTHER_OPTIONS


def test_a_manifest_is_read_once_as_long_as_it_does_not_change(make_runs, tmp_path, monkeypatch):
    runs, read, read_table = make_runs(), [], data.read_table
    monkeypatch.setattr(data, "read_table", lambda *x: read.append(x[0].name) or read_table(*x))
    run_cells(runs, [A, B], progressbar=False)
    assert {runs.state(cell) for cell in [A, B] * 3} == {State.FINISHED}
    change(tmp_path / "dev.csv", "TWO", "THREE")
    assert {runs.state(cell) for cell in [A, B] * 3} == {State.OTHER_OPTIONS}
    assert read == ["train.csv", "dev.csv", "test.csv", "dev.csv"]


def test_an_archive_tells_what_is_said_and_not_where_it_lies(make_runs, tmp_path):
    kept = tmp_path / "kept"
    run_cells(make_runs(), [A], progressbar=False)
    archive_cells(make_runs(), [A], kept)
    change(tmp_path / "train.csv", "/data", "/elsewhere")
    restore_cells(make_runs("there"), [A], kept)
    assert make_runs("there").state(A) is State.FINISHED
    change(tmp_path / "train.csv", "TWO", "TOO")
    assert make_runs("there").state(A) is State.OTHER_OPTIONS
    with pytest.raises(DataError, match=r"a/1\.json ran with other .*train_csv has other ids"):
        restore_cells(make_runs("third"), [A], kept)
    assert not (tmp_path / "third").exists()


def test_an_archive_without_fingerprints_is_taken_for_that_of_the_data_here(make_runs, tmp_path):
    kept = tmp_path / "kept"
    run_cells(make_runs(), [A], progressbar=False)
    archive_cells(make_runs(), [A], kept)
    archived = json.loads((kept / "a/1.json").read_text())
    del archived["files"][data.DATA_FILE]
    (kept / "a/1.json").write_text(json.dumps(archived))
    change(tmp_path / "train.csv", "TWO", "TOO")
    there = make_runs("there")
    restore_cells(there, [A], kept)
    assert there.state(A) is State.FINISHED
    archive_cells(there, [A], kept)
    assert json.loads((kept / "a/1.json").read_text()) == archived
