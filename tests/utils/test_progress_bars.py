import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from todm_sb.utils.progress import bar

# Each shows a bar where somebody sits at a terminal.
SHOWING = {
    "a loop": "list(bar(range(9), mininterval=0))",
    "no loop": """
with bar(total=3) as shown:
    shown.set_postfix_str("running")
    shown.update()
    shown.n = 3
    shown.refresh()
""",
}


@pytest.mark.parametrize("code", SHOWING.values(), ids=SHOWING)
def test_a_log_gets_no_bar(code):
    code = f"from todm_sb.utils.progress import bar\n{code}"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert ended.stderr == ended.stdout == b""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    assert list(bar(range(3), file=sys.stderr, show=False)) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""
    assert list(bar(range(3), file=sys.stderr, unit="utt")) == [0, 1, 2]
    assert "3/3" in sys.stderr.getvalue()


@pytest.mark.parametrize(("stream", "shows"), [(io.StringIO, False), (Terminal, True)])
def test_speechbrains_bars_of_training_are_for_terminals_too(
    monkeypatch, make_transducer, stream, shows
):
    from todm_sb.supernet import Objective, SearchSpace
    from todm_sb.training.brain import TODMBrain

    modules = {"features": None, "model": make_transducer()}
    space = SearchSpace(1, 1, ffn_dims=(8,))
    hparams = {
        "space": space,
        "named_subnets": {},
        "epoch_counter": None,
        "objective": Objective(),
        **dict.fromkeys(("n_random", "sandwich_warmup", "micro_batches"), 1),
    }
    monkeypatch.setattr("sys.stderr", stream())
    for asked, shown in [({}, shows), ({"noprogressbar": True}, False)]:
        brain = TODMBrain(modules, None, hparams, run_opts={"device": "cpu", **asked})
        assert brain.noprogressbar is not shown


def test_a_comparison_asks_for_a_bar_and_gets_none_in_a_log(capfd):
    from todm_sb.experiments.compare.runner import run_cells

    run_cells(SimpleNamespace(), [], progressbar=True)
    assert capfd.readouterr().err == ""
