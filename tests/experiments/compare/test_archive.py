"""A comparison goes on elsewhere from the figures of its finished cells."""

import json

import pytest
from test_tables import NAMES, SIZES, cells, runs  # noqa: F401 (fixtures)

from todm_sb.experiments.compare.archive import archive_cells, restore_cells
from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.experiments.compare.tables import Comparison
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.recipe import Recipe, yaml_of
from todm_sb.utils.errors import DataError


def elsewhere(runs, overrides=""):  # noqa: F811
    """The same comparison in another folder."""
    user = yaml_of().load(overrides) or {}
    return Runs(runs.root.parent / "elsewhere", Recipe(runs.hparams_file, user))


def test_the_tables_are_the_same_elsewhere(runs, cells, tmp_path):  # noqa: F811
    kept = tmp_path / "kept"
    archive_cells(runs, cells, kept)
    unfinished = Cell(NAMES[-1], 2, {})
    assert len(list(kept.rglob("*.json"))) == 7
    assert not (kept / f"{unfinished.id}.json").exists()

    there = elsewhere(runs)
    restore_cells(there, cells, kept)
    states = {cell.id: there.state(cell) for cell in cells}
    assert states.pop(unfinished.id) is State.NEW
    assert set(states.values()) == {State.FINISHED}
    assert Comparison(there, cells, SIZES).to_dict() == Comparison(runs, cells, SIZES).to_dict()


def test_an_archive_keeps_the_course_of_a_run(runs, cells, tmp_path):  # noqa: F811
    records = [{"epoch": 1, "train": {}, "valid": {"WER max": 3.0}, "wer_of": {}}]
    TrainingHistory(runs.folder(cells[0])).write(records)
    archive_cells(runs, cells, tmp_path / "kept")
    there = elsewhere(runs)
    restore_cells(there, cells, tmp_path / "kept")
    assert TrainingHistory(there.folder(cells[0])).read() == records
    assert not (there.folder(cells[1]) / "history.jsonl").exists()


def test_an_archive_tells_no_place_and_other_data_may_lie_elsewhere(runs, cells, tmp_path):  # noqa: F811
    runs.hparams_file.write_text(runs.hparams_file.read_text() + "data_folder: /here/data\n")
    for cell in cells:
        if runs.folder(cell).exists():
            (runs.folder(cell) / "options.json").write_text(json.dumps(runs.options(cell)))
    archive_cells(runs, cells, tmp_path / "kept")
    assert all(str(tmp_path) not in f.read_text() for f in (tmp_path / "kept").rglob("*.json"))
    assert all("/here" not in f.read_text() for f in (tmp_path / "kept").rglob("*.json"))
    there = elsewhere(runs, "data_folder: /there")
    restore_cells(there, cells, tmp_path / "kept")
    assert there.state(cells[0]) is State.FINISHED


def test_manifests_of_ones_own_may_lie_elsewhere_as_may_noise(runs, cells, tmp_path):  # noqa: F811
    def own(place, noise):
        csvs = f"train_csv: {place}/a.csv\nvalid_csv: {place}/b.csv\ntest_csvs: [{place}/test.csv]"
        noises = f"noise_folder: {noise}\nnoise_augment: {{folder: !ref <noise_folder>}}"
        return f"{csvs}\n{noises}\n"

    recipe = runs.hparams_file.read_text()
    runs.hparams_file.write_text(recipe + own("/here", "/here/noise"))
    runs.freeze()
    for cell in cells:
        if runs.folder(cell).exists():
            (runs.folder(cell) / "options.json").write_text(json.dumps(runs.options(cell)))
    archive_cells(runs, cells, tmp_path / "kept")
    assert all("/here" not in f.read_text() for f in (tmp_path / "kept").rglob("*.json"))
    there = elsewhere(runs, own("/there", "/there/noise"))
    restore_cells(there, cells, tmp_path / "kept")
    assert there.state(cells[0]) is State.FINISHED
    runs.hparams_file.write_text(recipe + own("/here", "null"))
    quiet = Runs(tmp_path / "quiet", Recipe(runs.hparams_file))
    with pytest.raises(DataError, match=r"other options \(noise_folder was a folder"):
        restore_cells(quiet, cells, tmp_path / "kept")


def test_cells_of_other_options_are_refused_and_nothing_is_written(runs, cells, tmp_path):  # noqa: F811
    archive_cells(runs, cells, tmp_path / "kept")
    runs.hparams_file.write_text(runs.hparams_file.read_text() + "lr: 0.5\n")
    there = elsewhere(runs)
    with pytest.raises(DataError, match=r"supernet/1.json ran with other options \(lr was None"):
        restore_cells(there, cells, tmp_path / "kept")
    assert not there.root.exists()


def test_a_precision_left_to_the_machine_is_that_which_it_has(runs, cells, tmp_path, monkeypatch):  # noqa: F811
    with runs.hparams_file.open("a") as recipe:
        recipe.write("precision: !apply:todm_sb.training.precision.fastest_precision\n")
    runs.freeze()
    machine = "todm_sb.experiments.compare.cells.fastest_precision"
    monkeypatch.setattr(machine, lambda: "fp32")
    for cell in cells:
        if runs.folder(cell).exists():
            (runs.folder(cell) / "options.json").write_text(json.dumps(runs.options(cell)))
    archive_cells(runs, cells, tmp_path / "kept")
    monkeypatch.setattr(machine, lambda: "bf16")
    with pytest.raises(DataError, match="precision was fp32, is bf16"):
        restore_cells(elsewhere(runs), cells, tmp_path / "kept")
    # One that is given for the runs holds on any machine.
    runs.run_options = ["--precision=fp32"]
    on_new = runs.options(cells[0])
    monkeypatch.setattr(machine, lambda: "fp32")
    assert on_new == runs.options(cells[0])


def test_a_cell_without_the_test_set_is_refused(runs, cells, tmp_path):  # noqa: F811
    archive_cells(runs, cells, tmp_path / "kept")
    there = elsewhere(runs)
    there.splits = ["test", "other"]
    with pytest.raises(DataError, match=r"has no errors_other\.json: delete it"):
        restore_cells(there, cells, tmp_path / "kept")


DATA = '{"options": {}, "files": {"data.json": 3}, "history": []}'


@pytest.mark.parametrize("damaged", ["", "{}", "[1]", '{"options": {}, "files": 3}', DATA])
def test_an_archive_that_cannot_be_read_is_told(runs, cells, tmp_path, damaged):  # noqa: F811
    archive_cells(runs, cells, tmp_path / "kept")
    (tmp_path / "kept" / f"{cells[0].id}.json").write_text(damaged)
    there = elsewhere(runs)
    with pytest.raises(DataError, match=r"supernet/1\.json cannot be read .* delete it"):
        restore_cells(there, cells, tmp_path / "kept")
    assert not there.root.exists()


def test_what_was_begun_here_is_left_alone(runs, cells, tmp_path):  # noqa: F811
    archive_cells(runs, cells, tmp_path / "kept")
    there = elsewhere(runs)
    folder = there.folder(cells[0])
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").touch()
    (folder / "options.json").write_text(json.dumps(there.options(cells[0])))
    restore_cells(there, cells, tmp_path / "kept")
    assert there.state(cells[0]) is State.UNFINISHED
