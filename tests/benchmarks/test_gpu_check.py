"""The check of a GPU: its parts run apart, within their time, and what has passed is kept."""

import json
import math
import runpy
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "gpu_check"
MODULES = ("check_runner", "check_report", "check_parity", "check_sizes", "check_speed")

# Parts as of a GPU, of which one passes, one fails, one dies and one does not come to an end.
PARTS = """
import os, time

def passes(context):
    with open(context.out / "calls", "a") as calls:
        calls.write("x")
    yield {"what": "one", "audio hours an hour": 100.0, "ok": True}

def fails(context):
    yield {"what": "wrong", "difference": 0.1, "ok": False}

def dies(context):
    yield {"what": "before"}
    os._exit(3)

def raises(context):
    raise RuntimeError("no luck")
    yield

def hangs(context):
    yield {"what": "before"}
    time.sleep(600)
"""


@pytest.fixture
def modules(monkeypatch):
    """The check's modules, which do not stay."""
    monkeypatch.syspath_prepend(FOLDER)
    yield {name: __import__(name) for name in MODULES}
    for name in [x for x in sys.modules if x.startswith("check_")]:
        del sys.modules[name]


@pytest.fixture
def runner(modules, monkeypatch, tmp_path):
    """The runner, with other parts."""
    runner = modules["check_runner"]
    folder = tmp_path / "check"
    folder.mkdir()
    (folder / "check_fakes.py").write_text(PARTS)
    monkeypatch.syspath_prepend(folder)
    fakes = dict.fromkeys(("passes", "fails", "dies", "raises"), ("check_fakes", 60))
    fakes["hangs"] = ("check_fakes", 3)
    monkeypatch.setattr(runner, "PARTS", fakes)
    monkeypatch.setattr(runner, "LEAST", 2.0)
    return runner


def test_each_part_ends_by_itself_and_is_taken_up_again(runner, modules, tmp_path):
    context = runner.Context("cpu", "toy", tmp_path / "out")
    results = runner.run_parts(list(runner.PARTS), context, 240)
    wrong = {name: runner.problems(result) for name, result in results.items()}
    assert wrong["passes"] == []
    assert "difference" in wrong["fails"][0]
    assert wrong["dies"] == ["ended with status 3"]
    assert wrong["raises"] == ["RuntimeError: no luck"]
    assert wrong["hangs"] == ["broken off after 3 s"]
    assert results["hangs"]["rows"] == [{"what": "before"}]  # what it had found by then

    again = runner.run_parts(["passes", "fails"], context, 240)
    assert again["passes"] == json.loads((context.out / "passes.json").read_text())
    assert (context.out / "calls").read_text() == "x"  # not once more
    late = runner.run_parts(["passes", "dies"], context, 1)
    assert runner.problems(late["passes"]) == []
    assert "no time was left" in runner.problems(late["dies"])[0]
    # Of something else, and by a process from scratch.
    other = runner.Context("cuda", "paper", context.out)
    results = runner.run_parts(["passes", "raises"], other, 240)
    assert runner.problems(results["passes"]) == []
    assert "RuntimeError: no luck" in (context.out / "raises.log").read_text()
    assert (context.out / "calls").read_text() == "xx"


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"key": 1, "rows": []}'])
def test_a_file_of_something_else_is_no_result(runner, tmp_path, text):
    (tmp_path / "passes.json").write_text(text)
    assert runner.read("passes", runner.Context("cpu", "toy", tmp_path)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--device=cuda"], "there is no GPU here"), (["--out={file}"], "is no folder")],
)
def test_what_cannot_be_checked_is_told_first(
    modules, tmp_path, monkeypatch, capsys, arguments, message
):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(modules["check_runner"], "machine", lambda: {"card": ""})
    given = [x.format(file=file) for x in arguments]
    monkeypatch.setattr(sys, "argv", ["gpu_check", *given])
    main = runpy.run_path(str(FOLDER / "__main__.py"), run_name="benchmark")["main"]
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def result(rows, error=""):
    return {"rows": rows, "done": not error, "error": error, "seconds": 1.0}


def test_the_page_says_what_failed_and_that_there_was_no_gpu(modules, tmp_path):
    report, context = modules["check_report"].report, modules["check_runner"].Context
    speed = result([{"what": "bf16", "audio hours an hour": 961.0, "ok": True}])
    text, passed = report({"speed": speed}, context("cpu", "toy", tmp_path))
    assert passed
    assert "no GPU was at hand" in text
    assert "| bf16 | 90.0 | 11.2 |" in " ".join(text.split())  # 90 x 960.9 h at that pace
    text, passed = report({"parity": result([], "lost")}, context("cuda", "paper", tmp_path))
    assert not passed
    assert "**failed**: lost" in text
    assert "no GPU" not in text


def test_the_references_recursion_is_the_sum_over_all_alignments(modules):
    arcs = torch.randn(4, 3, 3, dtype=torch.float64).log_softmax(-1)[..., :2]
    paths = []
    # Of the first 5 moves of 3 blanks and 2 labels, which are labels; the last is a blank.
    for labels in combinations(range(5), 2):
        t = u = 0
        total = 0.0
        for move in range(5):
            if move in labels:
                total, u = total + arcs[t, u, 1], u + 1
            else:
                total, t = total + arcs[t, u, 0], t + 1
        paths.append(total + arcs[3, 2, 0])
    expected = -torch.logsumexp(torch.stack(paths), 0)
    torch.testing.assert_close(modules["check_parity"].forward_loss(arcs, 4, 2), expected)


def test_a_wrong_result_is_noticed(modules):
    x = torch.tensor([3.0, 4.0])
    compared = modules["check_parity"]._compared
    assert compared("x", [x + 1e-6], [x], 1e-5)["ok"]
    row = compared("x", [x + 1e-3], [x], 1e-5)
    assert not row["ok"]
    assert row["difference"] == pytest.approx(math.sqrt(2) * 1e-3 / 5, rel=1e-2)


def test_work_is_counted(modules):
    sizes = modules["check_sizes"]
    x = torch.ones(1000)
    found = sizes.profile_of(lambda: float((x + 1).sum()), "cpu")
    assert (found.launches, found.waits) == (3, 1)
    assert sizes.peak_gb(lambda: x + 1, "cpu") == 4e-6
    assert sizes.seconds_of(lambda: x + 1, "cpu", 3) > 0
