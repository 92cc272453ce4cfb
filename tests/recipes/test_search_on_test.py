"""What a search found, beside evenly wide subnets on the test set."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from test_search_recipe import search  # noqa: F401 (a fixture)

from todm_sb.search.pareto import Evaluated, SearchResult
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training" / "search_on_test.py"
SPACE = SearchSpace(2, 1, ffn_dims=(16, 32))


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT), run_name="benchmark")


def evaluated(config, wer, cost):
    return Evaluated(config, wer, {"params": cost})


def result_of(*subnets):
    return SearchResult("params", 10.0, SPACE, subnets, {})


def test_a_budget_gets_the_find_and_the_even_ones(script):
    uneven = SubnetConfig.from_dict({"layers": [0, 1], "ffn_dims": [16, 32]})
    even = {subnet.label: subnet for subnet in SPACE.uniform()}
    subnets = (
        evaluated(even["1x16"], 30, 1),
        evaluated(even["1x32"], 40, 2),
        evaluated(uneven, 20, 3),
        evaluated(even["2x16"], 35, 4),
        evaluated(even["2x32"], 10, 5),
    )
    costs = {x.config: x.costs["params"] for x in subnets}.__getitem__
    found = script["subnets_of"](result_of(*subnets), 4, costs)
    assert [x.config for x in found.values()] == [uneven, even["2x16"], even["1x16"]]
    # The largest need not have been evaluated.
    found = script["subnets_of"](result_of(*subnets[:3]), 4, costs)
    assert [x.config for x in found.values()] == [uneven, even["2x16"], even["1x16"]]
    assert found["even, largest"].costs == {"params": 4}
    with pytest.raises(ConfigError, match=r"no evenly wide subnet within 3 was evaluated"):
        script["subnets_of"](result_of(subnets[2], subnets[4]), 3, costs)


def test_the_test_set_is_decoded_as_the_run_s_own_test_does(script, tiny_run):
    load = script["load_run"]
    hparams = load(tiny_run)
    tokenizer = script["run_tokenizer"](hparams)
    manifest = script["manifests_of_tests"](hparams)["test-clean"]
    dataset = script["read_split"](hparams, tokenizer, manifest, script["EVALUATE"])
    known = json.loads((tiny_run / "results_test-clean.json").read_text())
    errors = json.loads((tiny_run / "errors_test-clean.json").read_text())
    by_name = {x["subnet"]: SubnetConfig.pick(x) for x in known if not x["causal"]}
    tested = script["decode"](hparams, dataset, tokenizer, list(dict.fromkeys(by_name.values())))
    for name, subnet in by_name.items():
        found = tested[subnet]
        assert [found.errors[key] for key in errors["utterances"]] == errors["errors"][name]
        assert [found.speakers[key] for key in errors["utterances"]] == errors["speakers"]


def test_the_table_has_three_lines_a_budget(
    script,
    search,  # noqa: F811
    tiny_run,
    monkeypatch,
    capsys,
):
    study = "--study=on-test"
    search(tiny_run, "--evaluations=4", "--population=2", study)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["search_on_test.py", str(tiny_run), study])
    script["main"]()
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("|")][2:]
    assert [line.split("|")[2].strip() for line in lines] == [
        "found",
        "even, largest",
        "even, best on dev",
    ] * 5
    found, best = ([float(x.split("|")[6]) for x in lines[i::3]] for i in (0, 2))
    assert all(ours <= even for ours, even in zip(found, best, strict=True))


def test_a_search_of_other_weights_is_refused(script, tiny_run, tmp_path, monkeypatch, capsys):
    folder = tiny_run / "search" / "params" / "of-others"
    folder.mkdir(parents=True)
    result_of(evaluated(SPACE.min, 1, 1)).save(folder / "pareto.json")
    monkeypatch.setattr(sys, "argv", ["search_on_test.py", str(tiny_run), "--study=of-others"])
    with pytest.raises(SystemExit):
        script["main"]()
    assert "is of other weights: run todm-sb search again" in capsys.readouterr().err
