"""Which words about devices in todm_sb the tests of this folder would not miss.

    python tests/device/mutate.py [FILE ...]

Takes away one ``.to(device)`` or ``device=...`` after another, in a copy, and runs these tests on
it. Prints the places whose loss no test sees; those that may go unseen are in :data:`HARMLESS`,
with the reason. Takes minutes; not a test itself.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("todm_sb", "tests", "recipes", "pyproject.toml")
# The others test the pretended device, and count.
TESTS = ("recognition", "training", "processes", "recipe")
# Arguments of ``.to`` that are types, not devices.
TYPES = ("dtype", "wide", "accurate", "meta", "float32")

# By file and line of code, why nobody has to miss it.
HARMLESS = {
    "todm_sb/optim/scaled_adam.py: return torch.stack([norm.to(norms[0].device) for norm in norms])"
    ".tolist()": "only for parameters over several devices, of which there is one here",
}


@dataclass(frozen=True)
class Place:
    """Code that can be taken away.

    Args:
        file: relative to the root.
        line: from 1.
        begin, end: in the file's text; what is in between is taken away.
        code: of the whole line.
    """

    file: str
    line: int
    begin: int
    end: int
    code: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}"


def places(name: str, folder: Path) -> Iterator[Place]:
    """All of a file, named relative to the folder."""
    text = (folder / name).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def at(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def place(line: int, begin: int, end: int) -> Place:
        return Place(name, line, begin, end, lines[line - 1].strip())

    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        for word in node.keywords:
            if word.arg == "device":
                begin = at(word.lineno, word.col_offset)
                end = at(word.value.end_lineno, word.value.end_col_offset)
                # With the comma before it, unless it is the first argument.
                front = text[:begin].rstrip()
                yield place(word.lineno, len(front) - 1 if front[-1] == "," else begin, end)
        named = isinstance(node.func, ast.Attribute) and node.func.attr == "to"
        if named and not any(kind in ast.unparse(node.args[0]) for kind in TYPES):
            begin = at(node.func.value.end_lineno, node.func.value.end_col_offset)
            yield place(node.func.end_lineno, begin, at(node.end_lineno, node.end_col_offset))


def unseen(place: Place, folder: Path) -> bool:
    """Whether the tests pass without it."""
    path = folder / place.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: place.begin] + text[place.end :], encoding="utf-8")
    passed = all(_pass(folder, marked) for marked in ("not slow", "slow"))
    path.write_text(text, encoding="utf-8")
    return passed


def _pass(folder: Path, marked: str) -> bool:
    """Whether the tests of a mark pass, in a process of its own, in which all is loaded but what
    is tested."""
    child = os.fork()
    if child == 0:
        os._exit(_tests(folder, marked))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _tests(folder: Path, marked: str) -> int:
    import pytest

    sys.path.insert(0, str(folder))
    os.chdir(folder)
    sys.dont_write_bytecode = True
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        tests = [f"tests/device/test_{name}.py" for name in TESTS]
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", marked, *tests]))


def main() -> None:
    """Print what is not missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="of todm_sb; all of it by default")
    files = parser.parse_args().files or sorted((ROOT / "todm_sb").rglob("*.py"))
    names = [str(file.resolve().relative_to(ROOT)) for file in files]
    import pytest  # noqa: F401  loaded once, for all
    import speechbrain  # noqa: F401
    import torchaudio  # noqa: F401

    unexplained = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in COPIED:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, folder / part)
        if _with_nothing_removed_fails(folder):
            sys.exit("the tests fail as it is")
        for name in names:
            for place in places(name, folder):
                if unseen(place, folder):
                    reason = HARMLESS.get(f"{place.file}: {place.code}")
                    unexplained += reason is None
                    print(f"not missed: {place}\n    {reason or 'no reason is known'}", flush=True)
                else:
                    print(f"missed: {place}", flush=True)
    print(f"{unexplained} not missed without a reason")


def _with_nothing_removed_fails(folder: Path) -> bool:
    return not unseen(Place("todm_sb/__init__.py", 1, 0, 0, ""), folder)


if __name__ == "__main__":
    main()
