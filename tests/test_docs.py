"""The documentation is built as a site, all of it and without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from todm_sb.dataio.audio import TOLERANCE, TOLERANCES

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("recipes/*/todm/README.md")),
    *sorted(ROOT.glob("benchmarks/**/README.md")),
]
FOLDERS = "todm_sb|tests|benchmarks|examples|recipes|docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_ours_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    # Not those below something else, as of a run or a home.
    named = re.findall(rf"(?<![\w./~-])(?:{FOLDERS})/[\w./-]*\w", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_fault_is_told_once_with_its_test():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert len({row[0] for row in rows}) == len(rows) > 50
    assert all(re.search(r"`tests/[\w/]+\.py`", row[-1]) for row in rows)


def test_by_how_much_a_duration_may_be_wrong_is_told():
    text = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
    assert f"within {TOLERANCE} s of the file (MP3: {TOLERANCES['MP3']} s)" in text


def test_the_site_is_built_and_has_a_page_for_each_package(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    pages = {path.stem for path in (tmp_path / "api").glob("*.html")}
    packages = {path.parent.name for path in (ROOT / "todm_sb").glob("*/__init__.py")}
    assert {f"todm_sb.{name}" for name in packages} <= pages
    optim = (tmp_path / "api" / "todm_sb.optim.html").read_text(encoding="utf-8")
    assert "<li><code>lr_initial</code>" in optim
    assert {"index.html", "change.html", "reliability.html"} <= {x.name for x in tmp_path.iterdir()}
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "fonts.googleapis" not in text
        assert ":class:" not in text
