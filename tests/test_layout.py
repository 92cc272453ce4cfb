"""Functions and files stay small, and the names of elastic dimensions with their owners."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "todm_sb").rglob("*.py"))
SCRIPTS = sorted(p for folder in ("recipes", "benchmarks") for p in (ROOT / folder).rglob("*.py"))

MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60

# In how many files of the package an elastic dimension may be known by its name.
MAX_FILES_OF_DIMENSION = 6


def functions(path):
    """(name, lines) of each function of a file, methods and inner functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", [*PACKAGE, *SCRIPTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_FILE
    long = {name: n for name, n in functions(path) if n > MAX_LINES_OF_FUNCTION}
    assert not long


def test_few_files_know_the_width_of_ffns_by_name():
    knowing = [p for p in PACKAGE if "ffn_dims" in p.read_text(encoding="utf-8")]
    assert 1 <= len(knowing) <= MAX_FILES_OF_DIMENSION, knowing


def test_no_module_lies_loose_in_the_package():
    assert [p.name for p in (ROOT / "todm_sb").glob("*.py")] == ["__init__.py"]
