"""The documentation is built as a site, all of it and without a warning."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
