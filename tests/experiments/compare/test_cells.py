"""A cell's states, and what becomes of it when its run is stopped, fails, or is run elsewhere."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from todm_sb.experiments.compare.archive import archive_cells
from todm_sb.experiments.compare.cells import Cell, Runs, State, first_difference, known_runs
from todm_sb.experiments.compare.runner import run_cells
from todm_sb.training.recipe import Recipe, yaml_of
from todm_sb.utils.errors import ConfigError

RECIPE = """
seed: 0
output_folder: !ref results/<seed>
manifests: !ref <output_folder>/manifests
tokenizer_folder: !ref <output_folder>/tokenizer
lr: 0.1
fails: False
seconds: 0
"""

# Stands for train.py: it counts its starts, and writes what a run leaves behind.
SCRIPT = """
import os, pathlib, signal, sys, time
options = dict(a[2:].split("=", 1) for a in sys.argv[2:] if "=" in a)
folder = pathlib.Path(options["output_folder"])
(folder / "hyperparams.yaml").touch()
with (folder / "starts").open("a") as starts:
    print("start", file=starts, flush=True)
if options.get("fails") == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if options.get("fails") == "true":
    sys.exit("error: it failed")
time.sleep(float(options.get("seconds", 0)))
for name in ("cost", "errors_test", "results_test"):
    (folder / f"{name}.json").write_text("{}")
"""


@pytest.fixture
def make_runs(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "train.py").write_text(SCRIPT)

    def make(overrides="", **options):
        recipe = Recipe(tmp_path / "recipe.yaml", yaml_of().load(overrides) or {})
        return Runs(tmp_path / "results", recipe, program=program(tmp_path), **options)

    return make


def program(folder):
    """Stands for the training."""
    return [sys.executable, str(folder / "train.py")]


def starts(runs, cell):
    """How often a cell's run was started."""
    return len((runs.folder(cell) / "starts").read_text().splitlines())


A, B = Cell("a", 1, {}), Cell("b", 1, {"lr": "0.2"})


@pytest.mark.parametrize(
    ("visible", "options", "expected"),
    [
        (None, [], ["0", "1", "0"]),
        ("5,7", [], ["5", "7", "5"]),
        ("5,7", ["--device=cuda:1"], ["5,7"] * 3),
    ],
)
def test_cells_side_by_side_have_gpus_of_their_own(
    make_runs, tmp_path, monkeypatch, visible, options, expected
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    runs = make_runs("seconds: 0.5", run_options=options)
    with (tmp_path / "train.py").open("a") as script:
        script.write('(folder / "gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])\n')
    cells = [Cell(name, 1, {}) for name in "abc"]
    run_cells(runs, cells, jobs=3, progressbar=False)
    assert [(runs.folder(cell) / "gpu").read_text() for cell in cells] == expected


def test_a_finished_cell_is_kept(make_runs):
    runs = make_runs()
    assert runs.state(A) is State.NEW
    run_cells(runs, [A, B], jobs=2, progressbar=False)
    run_cells(runs, [A, B], progressbar=False)
    for cell in (A, B):
        assert runs.state(cell) is State.FINISHED
        assert starts(runs, cell) == 1


def test_what_is_finished_is_kept_elsewhere_before_the_next_cell_ends(make_runs, tmp_path):
    runs, kept = make_runs(), tmp_path / "kept"
    seen = []

    def ended(cell):
        archive_cells(runs, [cell], kept)
        seen.append({path.parent.name for path in kept.glob("*/*.json")})

    broken = Cell("broken", 1, {"fails": "true"})
    with pytest.raises(ConfigError, match="broken/1 failed"):
        run_cells(runs, [A, broken, B], progressbar=False, ended=ended)
    assert seen == [{"a"}, {"a"}, {"a", "b"}]


def test_a_cell_without_all_its_results_is_run_again(make_runs):
    runs = make_runs()
    run_cells(runs, [A], progressbar=False)
    (runs.folder(A) / "results_test.json").unlink()
    assert runs.state(A) is State.UNFINISHED
    run_cells(runs, [A], progressbar=False)
    assert runs.state(A) is State.FINISHED
    assert starts(runs, A) == 2


def test_a_cell_of_other_options_is_refused_before_anything_runs(make_runs):
    run_cells(make_runs(), [A], progressbar=False)
    runs = make_runs("lr: 0.5")
    assert runs.state(A) is State.OTHER_OPTIONS
    with pytest.raises(ConfigError, match=r"a/1 .*lr was 0\.1, is 0\.5.*delete"):
        run_cells(runs, [B, A], progressbar=False)
    assert not runs.folder(B).exists()


def test_a_cell_that_another_comparison_took_in_the_meantime_is_told_once_the_others_have_run(
    make_runs,
):
    runs, other, last = make_runs(), make_runs("lr: 0.5"), Cell("last", 1, {})

    def ended(cell):
        if cell is B:
            run_cells(other, [A], progressbar=False)

    with pytest.raises(ConfigError, match=r"a/1 was run with other options \(lr was 0\.5, is 0\.1"):
        run_cells(runs, [B, A, last], progressbar=False, ended=ended)
    assert runs.state(last) is State.FINISHED


def test_a_changed_recipe_is_other_options_and_a_moved_folder_is_not(make_runs, tmp_path):
    run_cells(make_runs(), [A], progressbar=False)
    (tmp_path / "results").rename(tmp_path / "moved")
    recipe = Recipe(tmp_path / "recipe.yaml")
    assert Runs(tmp_path / "moved", recipe).state(A) is State.FINISHED
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("lr: 0.1", "lr: 0.3"))
    assert Runs(tmp_path / "moved", recipe).state(A) is State.OTHER_OPTIONS


def test_the_recipe_is_read_once_for_a_cell_whose_state_is_asked_for_often(make_runs, monkeypatch):
    runs, read = make_runs(), []
    run_cells(runs, [A, B], progressbar=False)
    runs.freeze()
    text = Recipe.text
    monkeypatch.setattr(Recipe, "text", lambda recipe: read.append(recipe) or text(recipe))
    assert {runs.state(cell) for cell in [A, B] * 3} == {State.FINISHED}
    assert [recipe.overrides.get("lr") for recipe in read] == [None, 0.2]


def test_who_edits_the_recipe_does_not_change_a_comparison_that_runs(make_runs, tmp_path):
    runs = make_runs()
    runs.freeze()
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("lr: 0.1", "lr: 0.3"))
    run_cells(runs, [A], progressbar=False)
    assert runs.options(A)["lr"] == "0.1"
    assert runs.state(A) is State.FINISHED
    assert make_runs().state(A) is State.OTHER_OPTIONS


def test_a_run_that_was_made_by_hand_is_not_touched(make_runs):
    runs = make_runs()
    runs.folder(A).mkdir(parents=True)
    (runs.folder(A) / "hyperparams.yaml").touch()
    with pytest.raises(ConfigError, match="not made by a comparison"):
        run_cells(runs, [A], progressbar=False)


def test_who_asks_for_a_cells_state_leaves_nothing_in_its_folder(make_runs):
    runs = make_runs()
    run_cells(runs, [A], progressbar=False)
    (runs.folder(A) / ".lock").unlink()
    assert runs.state(A) is State.FINISHED
    assert not (runs.folder(A) / ".lock").exists()


def test_a_failed_cell_is_named_with_its_reason_and_the_others_run(make_runs):
    runs = make_runs()
    bad = Cell("bad", 1, {"fails": "true"})
    with pytest.raises(ConfigError, match=r"bad/1 failed \(error: it failed\).*output\.txt"):
        run_cells(runs, [bad, A], progressbar=False)
    assert runs.state(A) is State.FINISHED
    assert runs.state(bad) is State.UNFINISHED


def test_a_killed_cell_is_named_with_the_signal(make_runs):
    with pytest.raises(ConfigError, match=r"bad/1 failed \(killed by SIGKILL\)"):
        run_cells(make_runs(), [Cell("bad", 1, {"fails": "killed"})], progressbar=False)


def test_a_cell_that_runs_elsewhere_is_waited_for(make_runs):
    runs = make_runs()
    slow = Cell("slow", 1, {"seconds": "2"})
    process = runs.start(slow, os.environ)
    try:
        run_cells(runs, [slow, A], progressbar=False)
        assert runs.state(slow) is runs.state(A) is State.FINISHED
        assert starts(runs, slow) == 1
    finally:
        process.kill()
        process.wait()


def test_a_cell_that_broke_off_elsewhere_is_run_here(make_runs):
    runs = make_runs()
    cell = Cell("slow", 1, {"seconds": "2"})
    process = runs.start(cell, os.environ)
    threading.Timer(1, process.kill).start()
    run_cells(runs, [cell], progressbar=False)
    assert runs.state(cell) is State.FINISHED
    assert process.wait() == -signal.SIGKILL


def test_a_cell_that_runs_elsewhere_is_left_to_it(make_runs):
    runs = make_runs()
    slow = Cell("slow", 1, {"seconds": "60"})
    process = runs.start(slow, os.environ)
    try:
        assert runs.state(slow) is State.RUNNING
        assert runs.start(slow, os.environ) is None
    finally:
        process.kill()
        process.wait()
    assert runs.state(slow) in (State.NEW, State.UNFINISHED)


DRIVER = """
import signal, sys
from pathlib import Path
from todm_sb.experiments.compare.cells import Cell, Runs
from todm_sb.experiments.compare.runner import run_cells
from todm_sb.training.recipe import Recipe
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
here = Path(sys.argv[1])
program = [sys.executable, str(here / "train.py")]
runs = Runs(here / "results", Recipe(here / "recipe.yaml"), program=program)
run_cells(runs, [Cell("slow", 1, {"seconds": "600"})], progressbar=False)
"""


@pytest.mark.parametrize(
    ("sent", "state"), [(signal.SIGTERM, State.UNFINISHED), (signal.SIGKILL, State.RUNNING)]
)
def test_a_stopped_comparison_takes_its_cells_along_and_a_killed_one_leaves_them_locked(
    make_runs, tmp_path, sent, state
):
    runs = make_runs()
    slow = Cell("slow", 1, {"seconds": "600"})
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)])
    while not (runs.folder(slow) / "starts").exists():
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(sent)
    driver.wait()
    try:
        assert runs.state(slow) is state
    finally:
        for pid in holders(runs.folder(slow) / ".lock"):
            os.kill(pid, signal.SIGKILL)


def holders(path):
    """The processes that have a file open, from /proc."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if str(path) in opened:
            found.append(int(pid))
    return found


def test_cells_of_a_seed_share_their_data_and_have_folders_of_their_own(make_runs):
    runs = make_runs(overrides="lr: 0.7", run_options=["--device=cpu"])
    command = runs.command(B)
    root = runs.root
    assert command[-2:] == ["--device=cpu", "--noprogressbar"]
    assert {
        "--lr=0.2",  # the cell's own before the user's
        f"--output_folder={root}/b/1",
        f"--manifests={root}/data/1/manifests",
        f"--tokenizer_folder={root}/data/1/tokenizer",
        "--seed=1",
    } <= set(command)


def test_a_cell_is_not_gone_on_with_under_other_arguments(make_runs):
    runs = make_runs(run_options=["--precision=bf16", "--device=cpu"])
    run_cells(runs, [A], progressbar=False)
    swapped = make_runs(run_options=["--device=cpu", "--precision=bf16"])
    assert swapped.state(A) is State.FINISHED
    elsewhere = make_runs(run_options=["--precision=bf16", "--ckpt_interval_steps=50"])
    assert elsewhere.state(A) is State.FINISHED
    for other in ([], ["--device=cpu"], ["--precision=fp32", "--device=cpu"]):
        assert make_runs(run_options=other).state(A) is State.OTHER_OPTIONS


@pytest.mark.parametrize("key", ["seed", "output_folder", "save_folder", "manifests"])
def test_what_tells_a_cells_place_cannot_be_overridden(make_runs, key):
    with pytest.raises(ConfigError, match=f"--{key} differs from run to run"):
        make_runs(f"{key}: 1")


def test_the_runs_of_a_comparison_are_known(make_runs):
    runs = make_runs("lr: '0.{fold}'")
    assert known_runs(runs.root) == set()
    folds = [Cell("b", 7, {}, "3"), Cell("b", 2, {}, "fold-3")]
    run_cells(runs, [A, *folds], progressbar=False)
    assert known_runs(runs.root) == {("", 1), ("3", 7), ("fold-3", 2)}


def test_cells_of_different_folds_have_data_of_their_own(make_runs):
    runs = make_runs("lr: '0.{fold}'")
    cells = [Cell("b", 1, {}, fold) for fold in ("3", "4")]
    found = [runs.overrides(cell) for cell in cells]
    assert [x["lr"] for x in found] == ["0.3", "0.4"]
    assert [Path(x["manifests"]).parent.name for x in found] == ["3-1", "4-1"]
    assert len({cell.id for cell in cells}) == 2


@pytest.mark.parametrize(
    ("overrides", "folds", "message"),
    [
        ("lr: '0.{fold}'", [""], "no fold is named: give --folds, too"),
        ("", ["1", "2"], "no override has {fold}, as in --folds"),
        ("lr: '0.{fold}'", ["1", ".."], "'..' is no name"),
        ("lr: '0.{fold}'", ["1", ""], "'' is no name"),
    ],
)
def test_folds_without_data_of_their_own_are_refused(make_runs, overrides, folds, message):
    with pytest.raises(ConfigError, match=message):
        make_runs(overrides).check_folds(folds)


def test_a_test_set_is_called_the_same_in_all_folds(make_runs):
    with pytest.raises(ConfigError, match=r"test set test-{fold} has another name in each fold"):
        make_runs("lr: '0.{fold}'", splits=["test", "test-{fold}"]).check_folds(["1", "2"])


def test_folds_that_fit_are_taken(make_runs):
    make_runs().check_folds([""])
    make_runs("lr: '0.{fold}'").check_folds(["1", "fold-2.b"])


def test_a_cell_in_another_s_place_is_its_run(make_runs):
    runs = make_runs()
    run_cells(runs, [B], progressbar=False)
    same = Cell("c", 1, B.overrides, place="b")
    assert runs.state(same) is State.FINISHED
    run_cells(runs, [same], progressbar=False)
    assert starts(runs, same) == 1


def test_the_options_of_a_cell_are_kept_beside_its_results(make_runs):
    runs = make_runs()
    run_cells(runs, [B], progressbar=False)
    recorded = json.loads((runs.folder(B) / "options.json").read_text())
    assert recorded["lr"] == "0.2"
    assert recorded["manifests"] == "FOLDER/data/1/manifests"


def test_a_key_that_is_null_is_as_if_it_were_not_there():
    assert first_difference({"lr": "1"}, {"lr": "1", "new": ""}) is None
    assert first_difference({"lr": "1", "old": ""}, {"lr": "1"}) is None
    assert first_difference({"lr": "1"}, {"lr": "1", "new": "2"}) == "new was None, is 2"
