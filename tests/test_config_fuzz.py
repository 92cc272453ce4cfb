"""Subnets, search spaces and recipes with junk in them: a working object, or one clear line."""

import json
import random

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from junk import mutated
from torch import nn

from todm_sb.supernet import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError, recipe_errors

SUBNET = {"layers": [0, 2, 5], "ffn_dims": [128, 256, 384]}
SPACE = {"n_layers": 6, "min_layers": 3, "ffn_dims": [128, 256, 384], "layer_drop": "any"}


def scrambled(text, rng):
    """Text with characters changed, cut, doubled or put in."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(text) + 1)
        stop = start + rng.choice((1, 4, 16))
        junk = rng.choice(
            (text[start:stop] * 2, "", "9" * 5000, "[" * 5000, chr(rng.randrange(300)))
        )
        text = text[:start] + junk + text[stop if rng.random() < 0.5 else start :]
    return text


def made(make):
    """What was made, or None where it was refused as it should be."""
    try:
        return make()
    except ConfigError as error:
        line = str(error)
        assert line.isprintable()
        assert 10 < len(line) < 1000
        return None


def check_subnet(subnet):
    assert SubnetConfig.from_json(subnet.to_json()) == subnet
    assert subnet.id


def check_space(space):
    assert SearchSpace.from_dict(space.to_dict()) == space
    rng = random.Random(0)
    for subnet in (space.max, space.min, space.random(rng), space.mutate(space.max, rng)):
        assert subnet in space
        check_subnet(subnet)


def from_mutated_subnet(rng):
    return SubnetConfig.from_dict(mutated(SUBNET, rng))


def from_scrambled_json(rng):
    return SubnetConfig.from_json(scrambled(json.dumps(SUBNET), rng))


def from_mutated_space(rng):
    return SearchSpace.from_dict(mutated(SPACE, rng))


FEW_OR_MANY = [100, pytest.param(3000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", FEW_OR_MANY)
@pytest.mark.parametrize(
    ("make", "check"),
    [
        (from_mutated_subnet, check_subnet),
        (from_scrambled_json, check_subnet),
        (from_mutated_space, check_space),
    ],
)
def test_a_config_with_junk_in_it_works_or_is_refused_in_one_line(make, check, times):
    rng, outcomes = random.Random(0), {True: 0, False: 0}
    for _ in range(times):
        config = made(lambda: make(rng))
        outcomes[config is not None] += 1
        if config is not None:
            check(config)
    assert min(outcomes.values()) >= times / 50


RECIPE = """
space: !apply:todm_sb.supernet.SearchSpace.from_dict [!ref <search_space>]
search_space: {n_layers: 6, min_layers: 3, ffn_dims: [128, 256, 384], layer_drop: any}
pruning: !new:todm_sb.losses.pruning.Pruning
    s_range: 5
    simple_weight: 0.5
    warmup_batches: 200
objective: !new:todm_sb.supernet.objective.Objective
    ctc_weight: 0.5
    kd_weight: 0.01
    kd_nodes: occupancy
    divergence: !new:todm_sb.losses.distillation.AlphaDivergence
        alphas: [-1, 1]
        clip: 5.0
        classes: vocabulary
    pruning: !ref <pruning>
opt_class: !name:todm_sb.optim.ScaledAdam
    lr: 0.05
    betas: [0.9, 0.98]
    clipping_scale: 2.0
lr_annealing: !new:todm_sb.optim.Eden
    lr_initial: 0.05
    lr_batches: 300
    lr_epochs: 2
    warmup_batches: 50
"""

# What the recipe's parts are made from, as a command line can override it.
SETTINGS = {
    "search_space": SPACE,
    "pruning": {"s_range": 5, "simple_weight": 0.5, "warmup_batches": 200},
    "objective": {
        "ctc_weight": 0.5,
        "kd_weight": 0.01,
        "kd_nodes": "occupancy",
        "divergence": {"alphas": [-1, 1], "clip": 5.0, "classes": "vocabulary"},
    },
    "opt_class": {"lr": 0.05, "betas": [0.9, 0.98], "clipping_scale": 2.0},
    "lr_annealing": {"lr_initial": 0.05, "lr_batches": 300, "lr_epochs": 2, "warmup_batches": 50},
}


def load(overrides):
    with recipe_errors("recipe.yaml"):
        hparams = load_hyperpyyaml(RECIPE, json.dumps(overrides))
        network = nn.Linear(2, 2)
        return {**hparams, "optimizer": hparams["opt_class"](network.parameters())}


def check_recipe(hparams):
    check_space(hparams["space"])
    objective, log_probs = hparams["objective"], torch.randn(2, 3, 5).log_softmax(-1)
    labels = torch.tensor([[1, 2, 0], [0, 4, 1]])
    objective.divergence.value(log_probs, log_probs.flip(0), labels, 0)
    if objective.pruning is not None:
        objective.pruning.weights(3)
    hparams["lr_annealing"].apply(hparams["optimizer"])


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_recipe_with_junk_in_it_works_or_is_refused_in_one_line(times):
    rng, outcomes = random.Random(0), {True: 0, False: 0}
    for _ in range(times):
        key = rng.choice(list(SETTINGS))
        overrides = {key: mutated(SETTINGS[key], rng)}
        if not isinstance(overrides[key], dict):  # puts another object in the place of this one
            continue
        hparams = made(lambda overrides=overrides: load(overrides))
        outcomes[hparams is not None] += 1
        if hparams is not None:
            try:
                made(lambda hparams=hparams: check_recipe(hparams))
            except Exception as error:
                raise AssertionError(f"{overrides} was taken") from error
    assert min(outcomes.values()) >= times / 20


def test_a_sound_recipe_is_taken():
    check_recipe(load({}))
    check_recipe(load(SETTINGS))
