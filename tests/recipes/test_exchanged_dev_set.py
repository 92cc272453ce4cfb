"""A run whose dev set is exchanged before it goes on."""

import json
import logging
import shutil

import pytest
import torch
from tiny import arguments

from todm_sb.bundle.bundle import read_bundle
from todm_sb.export.run import export_run
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.runs import load_run


@pytest.fixture(scope="module")
def exchanged(corpus, train, tiny_run, tmp_path_factory):
    """The run after an epoch more, with a harder dev set; its checkpoints before."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("exchanged") / "run")
    before = set(checkpoints(run))
    harder = shutil.copy(run / "manifests" / "test-clean.csv", run / "manifests" / "harder.csv")
    rates = ErrorRates.rates
    with pytest.MonkeyPatch.context() as patch:
        worse = {"WER": 200.0, "CER": 200.0}
        patch.setattr(ErrorRates, "rates", lambda self: dict.fromkeys(rates(self), worse))
        train(arguments(corpus, run, number_of_epochs=3, valid_csv=harder))
    return run, before


def checkpoints(run):
    return sorted((run / "save").glob("CKPT*"))


def test_its_own_checkpoint_is_tested_and_exported(exchanged):
    run, before = exchanged
    assert before < set(checkpoints(run))  # those of before are kept
    newest = torch.load(checkpoints(run)[-1] / "model.ckpt")
    loaded = load_run(run)
    assert all(torch.equal(v, newest[k]) for k, v in loaded["model"].state_dict().items())
    results = json.loads((run / "results_test-clean.json").read_text())
    assert {result["weights"] for result in results} == {loaded["weights"]}
    log = (run / "log.txt").read_text()
    assert "is of another dev set, other subnets, another search" in log
    assert "checkpoints do not compete" in log
    history = [json.loads(x) for x in (run / "history.jsonl").read_text().splitlines()]
    assert history[0]["wer_of"] == history[1]["wer_of"] != history[2]["wer_of"]


def test_with_the_first_dev_set_its_checkpoints_are_back(exchanged, tiny_run, tmp_path, caplog):
    run = shutil.copytree(exchanged[0], tmp_path / "run")
    shutil.copy(run / "manifests" / "dev-clean.csv", run / "manifests" / "harder.csv")
    assert load_run(run)["weights"] == load_run(tiny_run)["weights"]
    # Where the data cannot be read, the newest checkpoint decides.
    (run / "manifests" / "harder.csv").unlink()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert load_run(run)["weights"] == load_run(exchanged[0])["weights"]
    assert "do not compete" in caplog.text


def test_error_rates_of_the_weights_of_before_are_not_exported(exchanged, tiny_run, tmp_path):
    run = shutil.copytree(exchanged[0], tmp_path / "run")

    def rates():
        export_run(run, tmp_path / "bundle")
        return {s.name: s.error_rates for s in read_bundle(tmp_path / "bundle").manifest.subnets}

    assert rates()["max"]["WER"] == 200.0
    shutil.copy(tiny_run / "results_test-clean.json", run)  # as if it had not been tested since
    assert not any(rates().values())
