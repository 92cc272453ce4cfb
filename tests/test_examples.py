"""Each example does what the page "Change X" of the documentation says of it."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from todm_sb.dataio import Row, write_csv
from todm_sb.dataio.split import read_splits
from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.decoders import greedy_search
from todm_sb.nnet.encoders import Encoder
from todm_sb.search.search import SubnetSearch
from todm_sb.search.study import SharedStudy
from todm_sb.space import DIMENSIONS, SearchSpace
from todm_sb.supernet import count_parameters, extract_subnet
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.searcher import searcher_of
from todm_sb.training.settings import load_checked

ROOT = Path(__file__).parents[1]
MINI = ROOT / "recipes" / "LibriSpeech" / "todm" / "hparams" / "mini.yaml"
LENGTHS = torch.tensor([61, 24])


@pytest.fixture(autouse=True)
def _examples(monkeypatch):
    """Imports find the examples; what they add to the dimensions is taken back."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    known = dict(DIMENSIONS)
    yield
    DIMENSIONS.clear()
    DIMENSIONS.update(known)


def load(*arguments, recipe=MINI):
    return load_checked(*parse_arguments([str(recipe), *arguments]))


@torch.no_grad()
def check_encoder(model, space):
    """Extraction gives what the supernet gives, and padding changes nothing."""
    encoder, features = model.eval().encoder, torch.randn(2, 61, model.encoder.n_features)
    assert isinstance(encoder, Encoder)
    for config in (space.max, space.min):
        small = extract_subnet(model, config)
        expected, n_frames = encoder(features, LENGTHS, config)
        torch.testing.assert_close(
            small.encoder(features, LENGTHS)[0], expected, rtol=1e-5, atol=1e-5
        )
        alone, _ = encoder(features[1:, :24], LENGTHS[1:], config)
        torch.testing.assert_close(expected[1, : n_frames[1]], alone[0], rtol=1e-5, atol=1e-5)
        assert (expected[1, n_frames[1] :] == 0).all()
        deployed = small.deployed()
        assert count_parameters(model, config) == sum(p.numel() for p in deployed.parameters())


def test_a_new_encoder():
    hparams = load("--model={encoder: {kind: encoder.convolution}}")
    assert hparams["model"].encoder.kind == "convolution"
    check_encoder(hparams["model"], hparams["space"])


def test_a_new_elastic_dimension():
    import dimension

    DIMENSIONS[dimension.KERNEL.key] = dimension.KERNEL  # also where it was imported before
    hparams = load(
        "--model={encoder: {kind: elastic_convolution}}", "--search_space={kernel_sizes: [3, 15]}"
    )
    space = hparams["space"]
    assert space.min["kernel_sizes"] == (3, 3, 3)
    assert space.min.describe()["kernel"] == "3 x 3"
    check_encoder(hparams["model"], space)


def test_a_new_corpus(tmp_path):
    words = ["ONE", "TWO", "SIX TWO", "ONE SIX"]
    for split in ("train", "dev", "test"):
        rows = []
        for i, text in enumerate(words):
            path = tmp_path / f"{split}-{i}.wav"
            soundfile.write(path, 0.1 * np.sin(np.arange(16000)), 16000)
            rows.append(Row(path.stem, 1.0, str(path), "someone", text))
        write_csv(tmp_path / f"{split}.csv", rows)
    hparams = load(
        f"--data_folder={tmp_path}",
        f"--output_folder={tmp_path / 'run'}",
        "--vocab_size=10",
        "--tokenizer_type=char",
        recipe=ROOT / "examples" / "corpus.yaml",
    )
    assert not any(hparams["card"].values())
    (tmp_path / "run").mkdir()
    splits = read_splits(hparams, tokenizer_of(hparams))
    assert [len(splits.train), len(splits.valid), len(splits.tests["test"])] == [4, 4, 4]


def test_a_new_divergence():
    hparams = load("--objective={divergence: !new:divergence.Hellinger {}}")
    divergence = hparams["objective"].divergence
    assert type(divergence).__name__ == "Hellinger"
    log_p, z = torch.randn(3, 5).log_softmax(-1), torch.randn(3, 5, requires_grad=True)
    log_q = z.log_softmax(-1)
    value = divergence.value(log_q, log_p, None, 0)
    roots = (log_p.exp().sqrt() - log_q.exp().sqrt()).square().sum(-1)
    torch.testing.assert_close(value, roots / 2)
    (expected,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
    gradient = divergence.gradient(log_q, log_p, None, 0)
    torch.testing.assert_close(torch.autograd.grad(log_q, z, gradient)[0], expected)


def test_a_new_searcher(make_transducer):
    model, n_frames = make_transducer(), torch.tensor([9, 4])
    with torch.no_grad():
        model.joiner.output.bias[model.blank] -= 3
    encoded = torch.randn(2, 9, 8)
    all_, sure = (
        searcher_of(load(f"--searcher=!name:searcher.ConfidentSearcher {{least: {p}}}"), model)
        for p in (0, 0.33)
    )
    expected = greedy_search(model, encoded, n_frames)
    assert [h for (h,) in all_.search(encoded, n_frames)] == expected
    n_kept = 0
    for (found,), whole in zip(sure.search(encoded, n_frames), expected, strict=True):
        kept = [i for i, log_prob in enumerate(whole.log_probs) if log_prob >= math.log(0.33)]
        assert found.tokens == [whole.tokens[i] for i in kept]
        n_kept += len(kept)
    assert n_kept < sum(len(whole.tokens) for whole in expected)


def test_a_new_search_algorithm(tmp_path):
    space = SearchSpace(4, 2, ffn_dims=(1, 2))
    study = SharedStudy(tmp_path / "study.db", population_size=4)

    def costs(config):
        return {"params": float(sum(config["ffn_dims"]))}

    def evaluate(config):
        return 100 / costs(config)["params"]

    search = SubnetSearch(study, space, evaluate, costs, algorithm="proposer.Mutations")
    result = search.run(8, False, progressbar=False)
    assert [*result.methods] == ["mutations"]
    assert len({*result.methods["mutations"]}) == 8


def test_every_example_is_on_the_page_and_tested():
    page = (ROOT / "docs" / "change.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("[!_]*.*"):
        assert f"examples/{path.name}" in page
        assert path.stem in tests
    assert "examples" not in sys.modules
