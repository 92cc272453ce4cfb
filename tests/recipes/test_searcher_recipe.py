"""A recipe's searcher decodes in validation, test and search, and not in what is exported."""

import json
import shutil

import pytest
from tiny import arguments, call

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.protocol import Searcher
from todm_sb.search.pareto import SearchResult
from todm_sb.utils.errors import ConfigError


class Parrot(Searcher):
    """Hears one label in every utterance; when it has time, another."""

    heard: list[int] = []  # noqa: RUF012

    def __init__(self, model, label):
        self.label = label

    def greedy(self):
        return Parrot(None, 3)

    def search(self, encoded, n_frames):
        Parrot.heard.append(self.label)
        return [[Hypothesis([self.label], [0], [0.0])] for _ in n_frames]


@pytest.fixture(scope="module")
def trained_on(tiny_run, corpus, train, tmp_path_factory):
    """The tiny run, trained an epoch longer under another searcher."""

    def go_on(searcher):
        run = tmp_path_factory.mktemp("searcher") / "run"
        # Another test may have searched it.
        shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("search"))
        train(arguments(corpus, run, number_of_epochs=3, searcher=searcher))
        return run

    return go_on


def test_any_searcher_validates_tests_and_searches(trained_on):
    Parrot.heard.clear()
    run = trained_on("!name:test_searcher_recipe.Parrot {label: 4}")
    # Four measured subnets, each in two modes.
    n_of_test = Parrot.heard.index(4)
    assert n_of_test > 0
    assert set(Parrot.heard[:n_of_test]) == {3}
    assert set(Parrot.heard[n_of_test:]) == {4}
    assert (len(Parrot.heard) - n_of_test) % 8 == n_of_test % 8 == 0

    Parrot.heard.clear()
    call("search", run, "--evaluations", 3, "--no-baselines")
    assert set(Parrot.heard) == {3}
    validated = json.loads((run / "history.jsonl").read_text().splitlines()[-1])["valid"]
    found = SearchResult.load(run / "search" / "params" / "pareto.json")
    assert {s.wer for s in found.subnets} == {validated["WER max"]} == {validated["WER min"]}


@pytest.fixture(scope="module")
def by_ctc(trained_on):
    return trained_on("!name:todm_sb.decoders.ctc.CTCSearcher")


def test_a_run_that_decodes_its_ctc_head_is_searched_but_not_exported(by_ctc, tmp_path):
    call("search", by_ctc, "--evaluations", 2, "--no-baselines")
    with pytest.raises(ConfigError, match="CTCSearcher needs a CTC head") as caught:
        call("export", by_ctc, tmp_path / "new")
    assert "exported networks have none" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_study_of_another_searcher_is_refused(by_ctc, tiny_run, tmp_path):
    run = shutil.copytree(by_ctc, tmp_path / "run")
    shutil.rmtree(run / "search", ignore_errors=True)
    call("search", run, "--evaluations", 2, "--no-baselines")
    recipe = run / "hyperparams.yaml"
    text = recipe.read_text(encoding="utf-8").replace(
        "decoders.ctc.CTC", "decoders.transducer.Transducer"
    )
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"of another decoding .*'CTC.* not .*'Transducer"):
        call("search", run, "--evaluations", 3, "--no-baselines")
