"""Overrides merge as hyperpyyaml merges them, and survive the command line."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain import parse_arguments

from todm_sb.compare.overrides import (
    as_arguments,
    as_text,
    as_yaml,
    merge,
    quoted,
    resolved_options,
)
from todm_sb.errors import ConfigError

RECIPE = """
# A comment.
lr: 0.1
out: here
path: !ref <out>/save
net:
    depth: 2
    widths: [1, 2]
opt_class: !name:torch.optim.SGD
    lr: !ref <lr>
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_mappings_merge_key_by_key_and_all_else_is_replaced():
    merged = merge("net: {depth: 3, widths: [1]}\nlr: 1", "net: {widths: [7, 8]}\nlr: null", "")
    assert merged == {"net": {"depth": 3, "widths": [7, 8]}, "lr": None}


def test_arguments_say_the_same_as_the_merged_overrides():
    given = {"lr": "0.2", "net": '{"widths": [3]}', "opt_class": "!name:torch.optim.Adam"}
    merged = merge(as_yaml(given))
    _, _, from_arguments = parse_arguments(["recipe.yaml", *as_arguments(merged)])
    for text in (from_arguments, as_text(merged)):
        loaded = load_hyperpyyaml(RECIPE, text)
        assert (loaded["lr"], loaded["net"]) == (0.2, {"depth": 2, "widths": [3]})
        assert loaded["opt_class"] is torch.optim.Adam


def test_strings_keep_their_characters():
    path = 'a b/"c": #d é'
    merged = merge(as_yaml({"out": quoted(path)}))
    _, _, text = parse_arguments(["recipe.yaml", *as_arguments(merged)])
    assert load_hyperpyyaml(RECIPE, text)["path"] == f"{path}/save"


def test_options_are_all_values_with_references_resolved(recipe):
    assert resolved_options(recipe, merge("net: {depth: 5}\nlr: 0.3")) == {
        "lr": "0.3",
        "out": "here",
        "path": "here/save",
        "net.depth": "5",
        "net.widths.0": "1",
        "net.widths.1": "2",
        "opt_class": "!name:torch.optim.SGD",
        "opt_class.lr": "0.3",
    }


def test_comments_make_no_difference_to_the_options(recipe):
    before = resolved_options(recipe, merge())
    recipe.write_text(RECIPE.replace("# A comment.", "# Another."))
    assert resolved_options(recipe, merge()) == before


def test_what_cannot_be_combined_is_one_line(recipe, tmp_path):
    with pytest.raises(ConfigError, match="cannot be combined"):
        merge("net: null", "net: {depth: 1}")
    with pytest.raises(ConfigError, match="structure"):
        resolved_options(recipe, merge("lr: {a: 1}"))
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        resolved_options(tmp_path / "absent.yaml", merge())
