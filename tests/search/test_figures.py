import re
from dataclasses import replace

import pytest
from test_pareto import some_result

from todm_sb.search.figures import draw_png, write_html


@pytest.mark.parametrize("result", [some_result(), replace(some_result(n=1), budgets=())])
def test_the_picture_is_a_png(tmp_path, result):
    draw_png(result, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_holds_every_subnet_and_loads_nothing_from_elsewhere(tmp_path):
    result = some_result()
    write_html(result, tmp_path / "pareto.html")
    page = (tmp_path / "pareto.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=", page)
    for subnet in result.of("NSGA-II"):
        assert subnet.config.id in page
