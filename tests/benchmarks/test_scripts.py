"""Every benchmark script can be loaded; those that need little run, at toy size."""

import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from todm_sb.utils.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted([*FOLDER.glob("*.py"), *FOLDER.glob("training/*.py")])


@pytest.fixture
def load(monkeypatch):
    """Loads a script as it would be started, up to its ``main``; what it imports of its folder
    does not stay, as there are other modules of these names."""
    known = set(sys.modules)

    def load_script(name):
        path = FOLDER / name
        monkeypatch.syspath_prepend(path.parent)
        return runpy.run_path(str(path), run_name="benchmark")

    yield load_script
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(FOLDER):
            del sys.modules[name]


@pytest.fixture
def run(load, monkeypatch, capsys):
    """Runs a script with arguments; returns the rows of its tables as lists of cells."""
    threads = torch.get_num_threads()

    def run_script(name, *arguments):
        main = load(name)["main"]
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        main()
        lines = capsys.readouterr().out.splitlines()
        return [[c.strip() for c in x.strip("|").split("|")] for x in lines if x.startswith("|")]

    yield run_script
    torch.set_num_threads(threads)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_can_be_loaded(load, script):
    load(script.relative_to(FOLDER))


def test_a_benchmark_tells_errors_of_the_latency_table(run):
    sizes = "--subnets=2", "--seconds=0.5", "--rounds=1"
    _, _, cells = run("latency.py", *sizes, "--networks", "d_model 144, heads elastic")
    assert cells[:2] == ["d_model 144, heads elastic", "2"]
    assert all(abs(float(cell)) < 1000 for cell in cells[-3:])


@pytest.fixture
def small_batches(load, monkeypatch):
    """Batches of one short utterance."""
    monkeypatch.syspath_prepend(FOLDER)
    watching = import_module("watching")
    for name, value in (("B", 1), ("SECONDS", 0.7), ("U", 2)):
        monkeypatch.setattr(watching, name, value)


def test_watching_is_timed_within_a_step(run, small_batches):
    _, _, cells = run("watching.py", "--steps=1")
    watching, step = (float(cell.removesuffix(" ms")) for cell in cells[2:4])
    assert 0 < watching < step


def test_both_precisions_take_a_step(run, small_batches):
    _, _, cells = run("precision.py", "--repeats=1")
    assert all(float(cell.removesuffix(" ms")) > 0 for cell in cells[2:4])


def test_rms_of_the_parameters_of_each_checkpoint_by_kind(run, tmp_path):
    for epoch in (1, 2):
        folder = tmp_path / f"save/CKPT+{epoch}"
        folder.mkdir(parents=True)
        (folder / "CKPT.yaml").write_text(f"epoch: {epoch}\n")
        weights = {"a.log_dt": torch.full((3,), -2.0 * epoch), "b.log_dt": torch.ones(2)}
        torch.save(weights, folder / "model.ckpt")
    # No other kind has a row.
    _, _, first, _, _, second = run("training/parameter_rms.py", tmp_path)
    assert first == ["log_dt", "2", "1 to 2"]
    assert second == ["log_dt", "2", "1 to 4"]


def test_rms_of_no_training_is_refused(run, tmp_path):
    with pytest.raises(SystemExit, match="has no checkpoint"):
        run("training/parameter_rms.py", tmp_path)


def test_the_signal_of_fewer_batches_than_two_is_refused(load, monkeypatch):
    main = load("training/gradient_signal.py")["main"]
    layers = torch.nn.Module()
    model = SimpleNamespace(encoder=SimpleNamespace(layers=layers))
    monkeypatch.setitem(main.__globals__, "load_newest", lambda run: {"model": model})
    monkeypatch.setitem(main.__globals__, "batches", lambda *_: iter(()))
    monkeypatch.setattr(sys, "argv", ["gradient_signal.py", "run"])
    with pytest.raises(ConfigError, match="run trains on 0 such batches: give fewer --seconds"):
        main()


def test_the_last_minute_of_a_stream_is_not_the_first(run, capsys):
    with pytest.raises(SystemExit):
        run("streaming.py", "run", "test.csv", "--minutes=1")
    assert "--minutes: must be at least 2, not 1" in capsys.readouterr().err


def test_steps_of_each_phase_are_timed_once_they_have_settled(load):
    seconds_a_step = load("training/processes.py")["seconds_a_step"]
    # Max alone takes 2 s a step, 9 at first; then the sandwich 4 s, 20 at first.
    times, losses = [0.0], [[1.0]] * 20 + [[1.0] * 4] * 20
    for first, after in ((9, 2), (20, 4)):
        times += [times[-1] + first * i for i in range(1, 6)]
        times += [times[-1] + after * i for i in range(1, 16)]
    log = [{"time": t, "losses": x} for t, x in zip(times[:-1], losses, strict=True)]
    assert seconds_a_step(log) == {"max alone": 2.0, "sandwich": 4.0}
    with pytest.raises(ConfigError, match="5 steps are too few to be timed"):
        seconds_a_step(log[:5])


@pytest.mark.slow
def test_versions_take_turns_at_their_own_work(load, tmp_path):
    checkouts, log = [tmp_path / name for name in ("ours", "peer")], tmp_path / "log"
    for checkout in checkouts:
        (checkout / "benchmarks").mkdir(parents=True)
        (checkout / "benchmarks" / "scaled_adam.py").write_text(
            "class ScaledAdam:\n    def __init__(self, params): pass\n"
            f"    def step(self): open({str(log)!r}, 'a').write('{checkout.name} ')\n"
            "def make_params(): pass\n"
        )
    row = load("versions.py")["compare"]("optimizer", checkouts, 2)
    assert log.read_text().split() == ["ours", "peer"] * 3  # one to warm up
    assert row.ours > 0
    assert row.peer > 0


def test_errors_are_of_listed_words_or_of_others(load):
    errors_of = load("hotwords.py")["errors_of"]
    said, found = ["FEED", "THE", "DOG", "THE", "CAT"], ["FEED", "DOG", "THE", "CAT", "ANNA"]
    assert errors_of([said], [found], ["FEED THE DOG", "ANNA"]) == (2, 3, 0, 2)
    assert errors_of([said], [["FEED", "THE", "DOG"]], ["FEED THE DOG"]) == (0, 3, 2, 2)
