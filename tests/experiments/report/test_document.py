"""A report holds what the results on disk say, and the page nothing but itself."""

import base64
import itertools
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from todm_sb.experiments.compare.figure import drawn
from todm_sb.experiments.report.document import write_report
from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.space import SearchSpace
from todm_sb.training import provenance
from todm_sb.training.curves import TrainingHistory
from todm_sb.utils.errors import ConfigError, TODMError

SPACE = SearchSpace(2, 1, ffn_dims=(16, 32))
SCORED = {"utterances": 20, "words": 99, "undecodable": 0, "left_out": {}}


def test_a_history_goes_on_whose_first_records_do_not_tell_what_they_are_of(tmp_path):
    history = TrainingHistory(tmp_path)
    history.write([{"epoch": 1, "train": {"max": 2.0}, "valid": {"WER max": 9.0}}])
    history.add(2, {"max": 1.0}, {"WER max": 8.0}, {"dev set": "a"})
    assert [record["epoch"] for record in history.read()] == [1, 2]
    assert (tmp_path / "curves.png").is_file()


@pytest.fixture
def run(tmp_path):
    """The folder of a training run of one epoch."""
    folder = tmp_path / "results" / "a%20b c" / "1"
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(
        "search_space:\n    n_layers: 2\n    min_layers: 1\n    ffn_dims: [16, 32]\n"
        "model: !new:absent.Class\n"
    )
    TrainingHistory(folder).add(1, {"max": 2.0}, {"loss": 3.0, "WER max": 50.0})
    provenance.record(folder, ["python", "train.py", "x.yaml", "--lr=0.1 & <more>"])
    cost = {"wall": 12.0, "processor": 8.0}
    (folder / "cost.json").write_text(
        json.dumps({"optimizer_steps": 7, "processes": 2, "threads": 1, "seconds": {"train": cost}})
    )
    result = {"subnet": "max", **SPACE.max.to_dict(), "parameters": 1.5e6, "WER": 12.34, "CER": 5.6}
    result |= SCORED
    (folder / "results_test-clean.json").write_text(json.dumps([result]))
    return folder


@pytest.fixture
def search(run):
    """A search in the run's folder: min is cheaper, max better, and another neither."""
    subnets = (
        Evaluated(SPACE.min, 30.0, {"params": 1e6}),
        Evaluated(SPACE.evenly_spaced(3)[1], 40.0, {"params": 1.25e6}),
        Evaluated(SPACE.max, 20.0, {"params": 1.5e6}),
    )
    ids = tuple(subnet.config.id for subnet in subnets)
    folder = run / "search" / "params"
    folder.mkdir(parents=True)
    result = SearchResult("params", 10.0, SPACE, subnets, {"NSGA-II": ids}, scored=SCORED)
    result.save(folder / "pareto.json")
    return folder


@pytest.fixture
def comparison(run):
    """What todm-sb compare leaves in the folder above the run's."""
    row = {
        "name": "1x16",
        "parameters": 1e6,
        "seeds": [1],
        "WER": 9.0,
        "WER of the other": 10.0,
        "relative difference": {"value": -10.0, "low": -15.0, "high": -5.0},
        "by seed": {"1": -10.0},
        "units": 2,
        "unit": "speakers",
        "seconds": [8.0, 9.0],
    }
    data = {
        "command": "todm-sb compare x.yaml",
        "splits": {"test": {"sizes": [row], "tuned": [], "ablation": [], "scored": []}},
        "tunings": {},
        "cost": {"means": {}, "steps": {}, "seeds": [], "ratio": {}},
    }
    folder = run.parents[1]
    (folder / "comparison.json").write_text(json.dumps(data))
    (folder / "comparison.png").write_bytes(drawn(data))
    return folder


def test_the_markdown_has_commands_tables_space_front_and_versions(run, search, comparison):
    markdown, _ = write_report(comparison)
    text = markdown.read_text(encoding="utf-8")
    assert "| 1x16" in text
    assert "-15.0 to -5.0" in text
    assert "todm-sb compare x.yaml" in text
    assert "python train.py x.yaml '--lr=0.1 & <more>'" in text
    assert "Search space: 1 to 2 layers; FFN 16, 32; layers left out: any." in text
    assert (
        "1 epochs, 7 optimizer steps, 12 s (8 s of processor time, 2 processes of 1 threads)."
        in text
    )
    assert re.search(r"\| max +\| 2 +\| 32 x 2 +\| 1\.50 M +\| 12\.34 \| 5\.60  \|", text)
    front = text[text.index("## Pareto front") : text.index("## Training runs")]
    assert "30.00" in front
    assert "20.00" in front
    assert "40.00" not in front
    for name, version in provenance.versions().items():
        assert re.search(rf"\| {name} +\| {re.escape(version)} +\|", text)


def rows_of(text):
    """Cells by heading, of the first table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def test_a_report_begins_with_a_line_for_each_run(run, search):
    smallest = {
        "subnet": "min",
        **SPACE.min.to_dict(),
        "parameters": 1e6,
        "WER": 23.456,
        "CER": 9.0,
        **SCORED,
    }
    path = run / "results_test-clean.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), smallest]))
    other = run.parent / "untested"
    other.mkdir()
    TrainingHistory(other).add(1, {"max": 2.0}, {"WER max": 60.0, "WER min": 70.0})
    TrainingHistory(other).add(2, {"max": 2.0}, {"WER max": 40.0, "WER min": 45.125})
    text = write_report(run.parent)[0].read_text(encoding="utf-8")
    assert text.startswith("# Report of a%20b c\n\n## Summary\n\n|")
    tested, untested = rows_of(text.partition("\n## Pareto")[0])
    assert tested == {
        "run": "1",
        "WER max %, test-clean": "12.34",
        "WER min %, test-clean": "23.46",
        "WER max %, dev": "",
        "WER min %, dev": "",
        "parameters": "1.00 M to 1.50 M",
        "training": "7 steps, 12 s",
        "best of a search, dev": "params: 20.00 % at 1.5 M",
    }
    assert {heading: cell for heading, cell in untested.items() if cell} == {
        "run": "untested",
        "WER max %, dev": "40.00",
        "WER min %, dev": "45.12",
    }


def test_pictures_are_linked_from_the_markdown_and_held_by_the_page(run, comparison):
    markdown, page = write_report(comparison)
    linked = re.findall(r"!\[.*?\]\((.*?)\)", markdown.read_text(encoding="utf-8"))
    assert linked == ["comparison.png", "a%2520b%20c/1/curves.png"]
    held = re.findall(r'src="data:image/png;base64,(.*?)"', page.read_text(encoding="utf-8"))
    assert [base64.b64decode(x) for x in held] == [
        (comparison / unquote(x)).read_bytes() for x in linked
    ]


def test_the_page_needs_no_other_file_and_shows_commands_as_they_were(run, comparison):
    _, page = write_report(comparison)
    references, texts = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            references.extend(v for k, v in attributes if k in ("src", "href"))

        def handle_data(self, data):
            texts.append(data)

    Reader().feed(page.read_text(encoding="utf-8"))
    assert all(reference.startswith("data:") for reference in references)
    assert any("--lr=0.1 & <more>" in text for text in texts)
    assert {"1x16", "12.34"} <= set(texts)


def test_a_run_alone_has_a_report(run):
    markdown, _ = write_report(run)
    text = markdown.read_text(encoding="utf-8")
    assert text.startswith("# Report of 1\n")
    assert "12.34" in text
    assert "Comparison" not in text


def test_a_foreign_comparison_is_named(tmp_path):
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"comparison\.json was not written by todm-sb compare"):
        write_report(tmp_path)


DAMAGED = ("cost.json", "provenance.json", "results_test-clean.json", "search/params/pareto.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(DAMAGED, [b"{", b"{}", b"[3]", b"\xff"]),
        *itertools.product(["hyperparams.yaml"], [b"{", b"[3]", b"search_space: 3", b"\xff"]),
    ],
)
def test_a_damaged_file_of_a_run_is_named(run, search, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(run / name))}"):
        write_report(run)
    assert not (run / "report.md").exists()


@pytest.mark.parametrize("line", [b'{"epoch": 2, "val', b"{}", b"[3]", b"\xff"])
def test_a_damaged_line_of_a_history_is_named(run, line):
    (run / "results_test-clean.json").unlink()  # without which the last line is told of
    with (run / "history.jsonl").open("ab") as file:
        file.write(line)
    with pytest.raises(TODMError, match=f"^{re.escape(str(run / 'history.jsonl'))}"):
        write_report(run)


def test_a_folder_without_results_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no results"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_that_somebody_wrote_or_changed_is_not_written_over(run, name):
    (run / name).write_text("my thesis")
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=f"{name} was not written by this command, .*: move it"):
        write_report(run)
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    (run / name).unlink()
    write_report(run)
    (run / "results_test-clean.json").unlink()
    write_report(run)  # over its own, with other contents
    assert "12.34" not in (run / "report.md").read_text()
    (run / name).write_text((run / name).read_text() + "and what I think of it")
    with pytest.raises(ConfigError, match="was changed since"):
        write_report(run)
    assert "what I think" in (run / name).read_text()
