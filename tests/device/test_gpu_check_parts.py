"""Parts of the check of a GPU, on the pretended one: nothing of theirs is on the wrong device."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
from pretended import FAR

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu_check"


@pytest.fixture
def rows_of(monkeypatch, tmp_path):
    """Runs a part; the check's modules do not stay."""
    monkeypatch.syspath_prepend(FOLDER)

    def run(name):
        context = import_module("check_runner").Context(FAR, "toy", tmp_path)
        return list(getattr(import_module(f"check_{name}"), name)(context))

    yield run
    for name in [x for x in sys.modules if x.startswith("check_")]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parity", "peers"])
def test_a_part_runs_on_a_device_that_is_no_cpu(ledger, rows_of, name):
    rows = rows_of(name)
    assert rows
    assert all(row.get("ok", "step, s" in row) for row in rows), rows
    assert ledger.launches.total() > 1000
