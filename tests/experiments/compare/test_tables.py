"""The tables say what the finished cells' files say."""

import json

import pytest

from todm_sb.experiments.compare.bootstrap import relative_difference
from todm_sb.experiments.compare.cells import Cell, Runs, State
from todm_sb.experiments.compare.figure import drawn
from todm_sb.experiments.compare.sizes import Size
from todm_sb.experiments.compare.tables import (
    Comparison,
    comparison_markdown,
    difference_text,
    verdict,
)
from todm_sb.space import SearchSpace
from todm_sb.training.recipe import Recipe
from todm_sb.utils.errors import DataError

SPACE = SearchSpace(2, 1, ffn_dims=(16, 32))
SIZES = [Size(SPACE.min, 1_000_000), Size(SPACE.max, 2_000_000)]
NAMES = ["supernet", "individual-1x16", "individual-2x32", "ablation-kd-none"]
WORDS = {"u1": 3, "u2": 5, "u3": 2}
SCORED = {"utterances": 3, "words": 10, "undecodable": 1, "left_out": {"no id": 2}}


def finish(runs, cell, errors, seconds, subnets):
    """Writes what a finished run leaves: errors of each subnet by utterance, and its cost."""
    folder = runs.folder(cell)
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").touch()
    (folder / "options.json").write_text(json.dumps(runs.options(cell)))
    results = [{"subnet": name, **subnet.to_dict(), **SCORED} for name, subnet in subnets.items()]
    tested = {
        "utterances": list(WORDS),
        "words": list(WORDS.values()),
        "errors": dict(zip(subnets, errors, strict=True)),
        "speakers": list(WORDS),
    }
    cost = {
        "optimizer_steps": 10,
        "threads": 1,
        "seconds": {
            "train": {"wall": 2 * seconds, "processor": seconds},
            "valid": {"wall": 2, "processor": 1},
        },
    }
    for name, content in (("results_test", results), ("errors_test", tested), ("cost", cost)):
        (folder / f"{name}.json").write_text(json.dumps(content))


BOTH = {"max": SPACE.max, "min": SPACE.min}
# Errors of max and min in the three utterances, or of the one network.
SUPERNET = {1: [[1, 0, 1], [2, 1, 1]], 2: [[0, 1, 0], [1, 1, 2]]}
INDIVIDUAL_MIN = {1: [[2, 2, 1]], 2: [[1, 2, 0]]}
INDIVIDUAL_MAX = {1: [[1, 0, 0]], 2: [[1, 2, 0]]}
WITHOUT_KD = {1: [[2, 0, 1], [2, 2, 1]]}


@pytest.fixture
def runs(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 0\noutput_folder: x\nmanifests: x\ntokenizer_folder: x\n")
    return Runs(tmp_path / "results", Recipe(recipe))


@pytest.fixture
def cells(runs):
    cells = {(name, seed): Cell(name, seed, {}) for seed in (1, 2) for name in NAMES}
    for seed in (1, 2):
        finish(runs, cells["supernet", seed], SUPERNET[seed], 30, BOTH)
        one = SearchSpace(1, 1, ffn_dims=(16,)).max
        finish(runs, cells["individual-1x16", seed], INDIVIDUAL_MIN[seed], 20, {"max": one})
        finish(runs, cells["individual-2x32", seed], INDIVIDUAL_MAX[seed], 40, {"max": SPACE.max})
    finish(runs, cells["ablation-kd-none", 1], WITHOUT_KD[1], 25, BOTH)
    return list(cells.values())


def test_the_table_pools_seeds_and_its_last_row_the_sizes(runs, cells):
    rows = Comparison(runs, cells, SIZES).to_dict()["splits"]["test"]["sizes"]
    assert [(row["name"], row["seeds"]) for row in rows] == [
        ("1x16", [1, 2]),
        ("2x32", [1, 2]),
        ("mean", [1, 2]),
    ]
    smallest, _, mean = rows
    # 8 and 8 errors of 2 x 10 words; of both sizes, 11 and 12 of 4 x 10.
    assert (smallest["WER"], smallest["WER of the other"]) == (40, 40)
    assert (mean["WER"], mean["WER of the other"]) == (pytest.approx(27.5), pytest.approx(30))
    expected = relative_difference([[2, 1, 1], [1, 1, 2]], [[2, 2, 1], [1, 2, 0]])
    assert smallest["relative difference"] == expected.to_dict()
    assert (smallest["units"], smallest["unit"]) == (3, "utterances")


def test_intervals_are_over_speakers_where_they_are_known(runs, cells):
    for cell in cells:
        path = runs.folder(cell) / "errors_test.json"
        if path.exists():
            tested = json.loads(path.read_text())
            path.write_text(json.dumps({**tested, "speakers": ["ann", "bob", "ann"]}))
    data = Comparison(runs, cells, SIZES).to_dict()
    smallest, _, mean = data["splits"]["test"]["sizes"]
    expected = relative_difference([[3, 1], [3, 1]], [[3, 2], [1, 2]])
    assert smallest["relative difference"] == expected.to_dict()
    assert (mean["units"], mean["unit"]) == (2, "speakers")
    assert "paired bootstrap over 2 speakers and" in comparison_markdown(data)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-20, -0.1, "better"),
        (-20, 0, "matches"),
        (-1, 2.9, "matches"),
        (-5, 3, "-"),
        (0.1, 2, "matches"),
        (0.1, 3, "worse"),
        (4, None, "worse"),
        (None, None, "worse"),
        (-5, None, "-"),
    ],
)
def test_the_verdict_is_that_of_the_interval(low, high, expected):
    assert verdict(low, high) == expected


def test_a_difference_from_a_system_without_errors_has_no_figure():
    assert difference_text({"value": -5.72, "low": -8, "high": 0}) == "-5.7 (-8.0 to +0.0)"
    assert difference_text(relative_difference([1, 2], [0, 0]).to_dict()) == "- (- to -)"


def test_the_ablation_compares_with_the_full_method_of_the_same_seeds(runs, cells):
    (row,) = Comparison(runs, cells, SIZES).to_dict()["splits"]["test"]["ablation"]
    assert (row["name"], row["seeds"]) == ("kd-none", [1])
    assert (row["WER"], row["WER of the other"]) == (pytest.approx(30), pytest.approx(40))
    assert row["relative difference"]["value"] == pytest.approx(-25)


def test_the_tables_say_what_the_error_rates_are_of(runs, cells):
    data = Comparison(runs, cells, SIZES).to_dict()
    assert data["splits"]["test"]["scored"] == [{**SCORED, "seeds": [1, 2]}]
    assert (
        "\n\nError rates of 3 utterances, 10 words; 1 of them could not be decoded, their words "
        "count as deleted; 2 left out: no id.\n\n"
    ) in comparison_markdown(data)
    for cell in cells:
        path = runs.folder(cell) / "results_test.json"
        if cell.seed == 2 and path.exists():  # a speaker of its own for each seed
            path.write_text(path.read_text().replace('"words": 10', '"words": 11'))
    text = comparison_markdown(Comparison(runs, cells, SIZES).to_dict())
    assert "\n\nSeeds 1: Error rates of 3 utterances, 10 words; " in text
    assert "\n\nSeeds 2: Error rates of 3 utterances, 11 words; " in text


def test_the_cost_ratio_is_the_supernet_to_all_individual_networks(runs, cells):
    cost = Comparison(runs, cells, SIZES).to_dict()["cost"]
    assert cost["ratio"]["processor"] == pytest.approx(30 / (20 + 40))
    assert cost["ratio"]["with_validation"] == pytest.approx(31 / (21 + 41))
    assert cost["means"]["individual-2x32"]["wall"] == 80


def test_steps_and_seconds_are_compared_within_a_seed(runs, cells):
    def change(cell, steps, seconds):
        path = runs.folder(cell) / "cost.json"
        cost = json.loads(path.read_text()) | {"optimizer_steps": steps}
        cost["seconds"]["train"]["processor"] = seconds
        path.write_text(json.dumps(cost))
        return comparison_markdown(Comparison(runs, cells, SIZES).to_dict())

    for cell in cells[4:7]:  # of seed 2, in which nothing is ablated
        text = change(cell, 8, 99)
    assert "All runs of a seed took equally many optimizer steps. 1: 10, 2: 8." in text
    (line,) = [line for line in text.splitlines() if line.startswith("| kd-none")]
    assert [x.strip() for x in line.strip("| ").split("|")][-2:] == ["25", "30"]
    text = change(cells[4], 9, 99)
    assert (
        "The runs differ in optimizer steps. 2: supernet 9, individual-1x16 8, individual-2x32 8."
    ) in text


def test_what_is_not_finished_is_left_out(runs, cells):
    (runs.folder(cells[0]) / "results_test.json").unlink()
    (runs.folder(cells[1]) / "results_test.json").unlink()
    assert runs.state(cells[0]) is State.UNFINISHED
    data = Comparison(runs, cells, SIZES).to_dict()
    assert [(r["name"], r["seeds"]) for r in data["splits"]["test"]["sizes"]] == [
        ("1x16", [2]),
        ("2x32", [2]),
        ("mean", [2]),
    ]
    assert data["splits"]["test"]["ablation"] == []
    for cell in cells:
        path = runs.folder(cell) / "results_test.json"
        path.unlink(missing_ok=True)
    assert "No size is finished" in comparison_markdown(Comparison(runs, cells, SIZES).to_dict())


def test_runs_of_other_test_sets_are_not_compared(runs, cells):
    path = runs.folder(cells[0]) / "errors_test.json"
    path.write_text(path.read_text().replace("u3", "u4"))
    with pytest.raises(DataError, match="not tested on the same utterances"):
        Comparison(runs, cells, SIZES).to_dict()


def test_text_and_picture_show_the_figures(runs, cells):
    data = json.loads(json.dumps(Comparison(runs, cells, SIZES).to_dict()))
    text = comparison_markdown(data)
    (line,) = [line for line in text.splitlines() if line.startswith("| 1x16")]
    shown = [cell.strip() for cell in line.strip("|").split("|")]
    assert shown[:5] == ["1x16", "1.00 M", "40.00", "40.00", "+0.0"]
    # 4 errors against 5, and against 3.
    assert shown[6:] == ["-", "1: -20.0, 2: +33.3", "20", "30"]
    assert "0.50 in processor time (0.50 with validation), 0.50 in wall time" in text
    assert "Every run took 10 optimizer steps." in text
    assert drawn(data).startswith(b"\x89PNG")


def test_a_tuned_network_has_a_row_of_its_own(runs, cells):
    one = SearchSpace(1, 1, ffn_dims=(16,)).max
    cells = [*cells, *(Cell("tuned-1x16", seed, {}) for seed in (1, 2))]
    finish(runs, cells[-2], [[1, 1, 1]], 70, {"max": one})
    data = Comparison(runs, cells, SIZES).to_dict()
    (row,) = data["splits"]["test"]["tuned"]
    assert (row["name"], row["seeds"]) == ("tuned-1x16", [1])
    assert (row["WER"], row["WER of the other"]) == (40, 30)
    # It takes no part in the mean of the sizes.
    assert (
        data["splits"]["test"]["sizes"]
        == (Comparison(runs, cells[:-2], SIZES).to_dict()["splits"]["test"]["sizes"])
    )
    (line,) = [x for x in comparison_markdown(data).splitlines() if x.startswith("| tuned-1x16")]
    assert [x.strip() for x in line.strip("| ").split("|")][-2:] == ["70", "30"]


def test_the_cost_is_also_told_against_as_many_networks_as_the_paper_has(runs, cells):
    text = comparison_markdown(Comparison(runs, cells, SIZES).to_dict())
    # 30 s against 20 and 40, five of which on average would take 150.
    assert "To 5 that cost as much on average as these 2: 0.20 in processor time." in text
