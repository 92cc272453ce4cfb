"""How small the subnets of the recipe at the paper's size get, by one key."""

from pathlib import Path

import pytest
import torch

from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet import count_parameters
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.settings import load_checked

HPARAMS = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "todm" / "hparams"
# As the comment in the YAML has it.
SMALL = "search_space={min_layers: 6, ffn_dims: [384, 768, 1536, 3072], n_heads: [2, 4, 8]}"


class ShapeOnly(Transducer):
    """A network whose weights take no memory."""

    def __init__(self, **options):
        with torch.device("meta"):
            super().__init__(**options)


def sizes(monkeypatch, *overrides):
    """Millions of parameters of max and min."""
    monkeypatch.setattr("todm_sb.nnet.transducer.Transducer", ShapeOnly)
    path, given = str(HPARAMS / "supernet.yaml"), [f"--{override}" for override in overrides]
    recipe, options = parse_arguments([path, "--data_folder=none", *given])
    hparams = load_checked(recipe, options)
    model, space = hparams["model"], hparams["space"]
    assert all(p.is_meta for p in model.parameters())
    return [count_parameters(model, config) / 1e6 for config in (space.max, space.min)]


def test_the_recipe_as_it_is_spans_the_papers_sizes(monkeypatch):
    assert sizes(monkeypatch) == pytest.approx([71.93, 20.44], abs=0.01)


@pytest.mark.parametrize(
    ("overrides", "most"),
    [((SMALL,), 11.0), ((SMALL, "model={predictor: {kind: stateless}}"), 8.0)],
)
def test_one_key_reaches_far_smaller_devices(monkeypatch, overrides, most):
    largest, smallest = sizes(monkeypatch, *overrides)
    assert smallest <= most < 12 < 60 < largest


def test_the_key_is_the_one_that_the_recipe_documents():
    text = (HPARAMS / "supernet.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines())
    assert f"--{SMALL.replace('={', chr(61) + chr(39) + '{')}'" in comment
