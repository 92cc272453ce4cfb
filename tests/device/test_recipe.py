"""A whole run of the mini recipe on another device: trained, resumed, tested, searched."""

import json
import sys
from pathlib import Path

import pytest
from pretended import FAR

sys.path.append(str(Path(__file__).parents[1] / "recipes"))
from tiny import CORPUS_SIZE, LIBRISPEECH, arguments, call, load_script

from todm_sb.search.pareto import SearchResult


def run_of(corpus, folder, device, **overrides):
    """The command line of a tiny run."""
    # Kaldi's features have buffers; those of SpeechBrain are in test_training.py.
    options = {"fbank_kind": "kaldi", **overrides}
    return [*arguments(corpus, folder / device, **options)[:-1], f"--device={device}"]


@pytest.mark.slow
def test_a_run_is_that_of_the_cpu(ledger, tmp_path):
    from todm_sb.dataio.mini_corpus import prepare_mini_corpus

    corpus = tmp_path / "corpus"
    prepare_mini_corpus(corpus, **CORPUS_SIZE)
    train = load_script(LIBRISPEECH / "train.py").main
    train(run_of(corpus, tmp_path, "cpu"))
    train(run_of(corpus, tmp_path, FAR, number_of_epochs=1))
    train(run_of(corpus, tmp_path, FAR))  # goes on from its checkpoint
    near, far = (
        [json.loads(line) for line in (tmp_path / d / "history.jsonl").read_text().splitlines()]
        for d in ("cpu", FAR)
    )
    assert [x["epoch"] for x in far] == [1, 2]
    for of_far, of_near in zip(far, near, strict=True):
        for part in ("train", "valid"):
            assert of_far[part] == pytest.approx(of_near[part], rel=1e-3)
    results = (
        json.loads((tmp_path / d / "results_test-clean.json").read_text()) for d in ("cpu", FAR)
    )
    for of_near, of_far in zip(*results, strict=True):
        assert of_far["WER"] == pytest.approx(of_near["WER"])

    for cost in ("params", "latency"):
        ledger.clear()
        call("search", tmp_path / FAR, "--evaluations", 3, "--device", FAR, "--cost", cost)
        assert SearchResult.load(tmp_path / FAR / "search" / cost / "pareto.json").subnets
        assert ledger.launches
