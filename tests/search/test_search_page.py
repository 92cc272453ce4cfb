"""The page of a search: it needs nothing else, and tells of each subnet where it is drawn."""

import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from test_figures import result_of
from test_pareto import some_result

from todm_sb.search.page import write_html

NODE = shutil.which("node")
SCORED = {"utterances": 20, "words": 99, "undecodable": 0, "left_out": {}}


def written(result, tmp_path):
    path = tmp_path / "pareto.html"
    write_html(replace(result, scored=SCORED), path)
    return path.read_text(encoding="utf-8")


def script(page, kind):
    return re.search(rf"<script{kind}>(.*?)</script>", page, re.S)[1]


def points_of(page):
    return json.loads(script(page, ' type="application/json" id="points"'))


def test_the_page_holds_every_subnet_and_loads_nothing_from_elsewhere(tmp_path):
    result = some_result()
    page = written(result, tmp_path)
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=", page)
    assert not re.search(r"\b(import|fetch)\b *\(|url\((?!#)|@import", page)
    assert {text.split("\n")[0] for _, _, text in points_of(page)} == {
        subnet.config.id for subnet in result.subnets
    }
    assert len(page) < 1e6
    assert page == written(result, tmp_path)


def test_a_subnet_is_told_of_where_it_is_drawn(tmp_path):
    """Against the places of the markers in the picture itself."""
    page = written(replace(result_of([9.0, 5.0, 5.5, 4.0, 3.0, 80.0]), budgets=()), tmp_path)
    svg = ET.fromstring(re.search(r"<svg.*?</svg>", page, re.S)[0])
    _, _, width, height = map(float, svg.get("viewBox").split())
    drawn = [
        (float(use.get("x")) / width, float(use.get("y")) / height)
        for use in svg.iter("{http://www.w3.org/2000/svg}use")
    ]
    points = points_of(page)
    assert len(points) == 6
    assert all(min(math.dist(place, (x, y)) for place in drawn) < 1e-3 for x, y, _ in points)
    # From left to right they become dearer, from top to bottom better.
    assert [p[2].split("\n")[2] for p in sorted(points)] == [
        f"{n} million parameters" for n in range(1, 7)
    ]
    rates = [float(p[2].split("\n")[1].split()[1]) for p in sorted(points, key=lambda p: p[1])]
    assert rates == sorted(rates, reverse=True)


def test_a_text_that_looks_like_html_stays_a_text(tmp_path):
    result = result_of([3.0])
    (name,) = result.methods.values()
    page = written(replace(result, methods={"</script><b>&amp;": name}), tmp_path)
    assert "<b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;&amp;amp;" in page


def test_the_table_is_the_front(tmp_path):
    page = written(result_of([6.0, 5.0, 5.5, 3.0]), tmp_path)
    rows = [re.findall(r"<t[hd]>(.*?)</t", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    assert rows[0][:3] == ["subnet", "params", "WER %"]
    assert [row[1:3] for row in rows[1:]] == [["1 M", "6.00"], ["2 M", "5.00"], ["4 M", "3.00"]]
    assert "3 of 4 subnets are on the Pareto front, the best has 3.00 % at 4 M." in page


# A window of 1000 x 800 in which the picture is 500 x 400, at (100, 50).
BROWSER = """
class Element extends EventTarget {
  hidden = true; style = {}; textContent = ""; offsetWidth = 200; offsetHeight = 100;
  getBoundingClientRect() { return { left: 100, top: 50, width: 500, height: 400 }; }
}
const elements = {};
globalThis.document = { getElementById: (id) => (elements[id] ??= new Element()) };
globalThis.addEventListener = () => {};
globalThis.innerWidth = 1000;
globalThis.innerHeight = 800;
document.getElementById("points").textContent = JSON.stringify(POINTS);
"""
MOVES = """
const seen = MOVES.map(([kind, clientX, clientY]) => {
  elements.picture.dispatchEvent(Object.assign(new Event(kind), { clientX, clientY }));
  const { tip, ring } = elements;
  return tip.hidden ? null : [tip.textContent, ring.style.left, ring.style.top, tip.style.left];
});
console.log(JSON.stringify(seen));
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_subnet_nearest_to_the_pointer_is_told_of(tmp_path):
    points = [[0.1, 0.1, "under"], [0.1, 0.1, "over"], [0.12, 0.1, "beside"], [1.0, 0.9, "edge"]]
    moves = [
        ("pointermove", 152, 91),
        ("pointermove", 158, 90),
        ("pointermove", 300, 300),
        ("pointerdown", 590, 400),
        ("pointerleave", 590, 400),
    ]
    values = f"const POINTS = {json.dumps(points)}, MOVES = {json.dumps(moves)};"
    page = written(result_of([3.0]), tmp_path)
    code = "\n".join([values, BROWSER, script(page, ""), MOVES])
    done = subprocess.run([NODE, "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        ["over", "150px", "90px", "166px"],
        ["beside", "160px", "90px", "176px"],
        None,
        ["edge", "600px", "410px", "616px"],
        None,
    ]
