"""Comparison and report on the mini recipe, made tiny."""

import importlib
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tiny import LIBRISPEECH, TINY

from todm_sb.cli import OK, main
from todm_sb.utils.errors import ConfigError, one_line_errors


@pytest.fixture(scope="module")
def compare():
    """Runs a comparison with these arguments."""
    return importlib.import_module("todm_sb.cli.compare").main


def command(corpus, output, *more, **overrides):
    """Command line of a tiny comparison at two sizes."""
    options = {**TINY, "number_of_epochs": 1, "data_folder": corpus, **overrides}
    return [
        str(LIBRISPEECH / "hparams" / "mini.yaml"),
        f"--output_folder={output}",
        "--sizes=2",
        *(f"--{key}={value}" for key, value in options.items()),
        "--device=cpu",
        "--noprogressbar",
        *more,
    ]


def results_of(cell):
    """By name, of the cell's first seed."""
    results = json.loads((cell / "1" / "results_test-clean.json").read_text())
    return {result["subnet"]: result for result in results}


def test_a_dry_run_lists_the_cells_and_writes_nothing(compare, corpus, tmp_path, capsys):
    output = tmp_path / "compare"
    compare(command(corpus, output, "--dry-run", "--seeds=1,2", "--cells=supernet,individual-*"))
    assert re.findall(r"^new +(.*)$", capsys.readouterr().out, re.MULTILINE) == [
        f"{name}/{seed}"
        for seed in (1, 2)
        for name in ("supernet", "individual-2x32", "individual-1x16")
    ]
    assert not output.exists()


def test_a_dry_run_tells_folds_trials_what_follows_and_the_time(compare, corpus, tmp_path, capsys):
    line = command(corpus, tmp_path / "compare", "--dry-run", "--step=0.5", "--hours=0.1")
    line = [x.replace(f"data_folder={corpus}", "data_folder=/data/{fold}") for x in line]
    compare(
        [
            *line,
            "--folds=a,b",
            "--tune=2x32",
            "--adamw_lr=0.001,0.002",
            "--cells=supernet,tuned-*,ablation-adamw",
        ]
    )
    printed = capsys.readouterr().out
    found = re.findall(r"^(\w+) +\d+ min (\S+)$", printed, re.MULTILINE)
    grid = [f"lr{lr}-dropout{x}" for lr in ("1", "0.5", "1.5", "2") for x in (1, 2)][1:]
    assert found == [
        ("new", "supernet/a-1"),
        ("new", "supernet/b-1"),
        ("new", "trial-adamw-0.001/a-1"),
        ("new", "trial-adamw-0.002/a-1"),
        ("new", "individual-2x32/a-1"),
        *(("new", f"trial-2x32-{name}/a-1") for name in grid),
        ("waits", "ablation-adamw/b-1"),
        ("waits", "tuned-2x32/b-1"),
    ]
    assert re.search(r"^14 cells to run: about \d+\.\d hours", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sizes=5"], "at 5 sizes: the search space has 4"),
        (["--cells=individual-7x7"], "fits none of supernet, individual-2x32"),
        (["--seed=3"], "--seed differs from run to run"),
        (["stray"], "'stray' is not understood"),
        (["--folds=1,2"], "no override has {fold}"),
        (["--test_splits=[]"], "has no test set to compare on"),
        (["--tune=7x7"], "--tune=7x7 is none of the sizes 1x16, 2x32"),
        (["--sizes=some"], "--sizes"),
        (["--step=0.5"], "--step is of --hours HOURS: add that one, or leave this one out"),
        (["--jobs=0"], "--jobs: must be at least 1, not 0"),
        (["--adamw_lr=nan"], "--adamw_lr: must be above 0, not nan"),
        (["--seeds=1,-1"], "--seeds must be an integer in 0..4294967295, not -1"),
        (["--beam_size=0"], "beam_size must be an integer"),
        (["--no_such_key=1"], "no_such_key"),
    ],
)
def test_a_bad_setting_ends_in_one_line(compare, corpus, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        compare(command(corpus, tmp_path / "compare", "--dry-run", *more))
    assert ended.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error: " in x]
    assert message in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--step=1"], "--step is of --dry-run: add that one"),
        (["--dry-run", "--hours=1"], "--hours is of --step SECONDS: add that one"),
    ],
)
def test_an_estimate_is_asked_for_as_a_whole(options, message):
    module = importlib.import_module("todm_sb.cli.compare")
    with pytest.raises(ConfigError, match=message):
        module.parse(["recipe.yaml", *options])


def test_cells_get_the_modules_of_ones_own_and_the_estimate_the_options_of_a_run(
    tmp_path, monkeypatch
):
    shown = []
    monkeypatch.setattr("todm_sb.cli.compare.show", lambda *args: shown.extend(args))
    line = command("/data", tmp_path / "compare", "--dry-run", "--grad_accumulation_factor=4")
    assert main(["--import=json", "compare", *line]) == OK
    experiment, hparams, _ = shown
    assert experiment.runs.program[1:] == ["-m", "todm_sb.cli", "--import=json", "train"]
    assert hparams["grad_accumulation_factor"] == 4


@pytest.mark.parametrize("option", ["--adamw_lr=0.001,1e-3", "--seeds=1,01", "--folds=a,b,a"])
def test_nothing_is_twice_in_a_list(option, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("todm_sb.cli.compare").parse(["recipe.yaml", option])
    assert "is twice there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dropouts", "message"),
    [((0.1, 0.0), "multiples of dropout, which is 0"), ((0.1, 0.5), "nothing would be left")],
)
def test_a_dropout_that_cannot_be_tuned_is_told_first(dropouts, message):
    module = importlib.import_module("todm_sb.cli.compare")
    parts = dict(zip(("encoder", "predictor"), ({"dropout": x} for x in dropouts), strict=True))
    hparams = {"model": SimpleNamespace(config=parts)}
    arguments, _ = module.parse(["recipe.yaml", "--tune=1x16"])
    size = SimpleNamespace(name="1x16")
    with pytest.raises(ConfigError, match=message):
        module.plan_of(hparams, [size], arguments)


@pytest.mark.slow
def test_a_comparison_trains_its_cells_once_and_its_report_shows_them(compare, corpus, tmp_path):
    output = tmp_path / "compare"
    compare(command(corpus, output, "--jobs=2"))
    data = json.loads((output / "comparison.json").read_text())
    rows = data["splits"]["test-clean"]["sizes"]
    assert [(row["name"], row["seeds"]) for row in rows] == [
        ("1x16", [1]),
        ("2x32", [1]),
        ("mean", [1]),
    ]
    for row, subnet in zip(rows[:2], ("min", "max"), strict=True):
        found = results_of(output / "supernet")
        alone = results_of(output / f"individual-{row['name']}")
        assert row["WER"] == pytest.approx(found[subnet]["WER"])
        assert row["WER of the other"] == pytest.approx(alone["max"]["WER"])
        assert row["parameters"] == found[subnet]["parameters"] == alone["max"]["parameters"]
    # The networks measure the sizes, in both modes, and nothing else.
    assert list(found) == ["max", "min", "max-causal", "min-causal"]
    assert list(alone) == ["max", "max-causal"]
    steps = {mean["optimizer_steps"] for mean in data["cost"]["means"].values()}
    assert len(steps) == 1
    assert steps.pop() > 0
    assert data["cost"]["ratio"]["processor"] > 0

    times = {path: path.stat().st_mtime_ns for path in output.glob("*/1/results_*.json")}
    assert len(times) == 3
    compare(command(corpus, output))
    assert times == {path: path.stat().st_mtime_ns for path in times}

    # The tables keep what is there of other seeds.
    compare(command(corpus, output, "--seeds=2", "--cells=individual-1x16"))
    kept = json.loads((output / "comparison.json").read_text())["splits"]
    assert kept["test-clean"]["sizes"] == rows

    with pytest.raises(ConfigError, match=r"objective\.ctc_weight was 1\.0, is 0\.1"):
        compare(command(corpus, output, objective="{ctc_weight: 0.1}"))
    assert json.loads((output / "comparison.json").read_text())["splits"] == kept

    report = [sys.executable, "-m", "todm_sb.cli", "report", str(output)]
    printed = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [str(output / "report.md"), str(output / "report.html")]
    text = (output / "report.md").read_text()
    assert "### individual-1x16/1" in text
    assert f"{rows[0]['WER']:.2f}" in text
