"""Overrides merge as hyperpyyaml merges them, and survive the command line."""

import pytest
import torch
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.experiments.compare.overrides import as_arguments, from_yaml, merge, resolved_options
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.recipe import Recipe, yaml_of
from todm_sb.utils.errors import ConfigError

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


def overrides(text):
    return yaml_of().load(text)


def test_mappings_merge_key_by_key_and_all_else_is_replaced():
    earlier = overrides("net: {depth: 3, widths: [1]}\nlr: 1")
    merged = merge(earlier, overrides("net: {widths: [7, 8]}\nlr: null"), {})
    assert merged == {"net": {"depth": 3, "widths": [7, 8]}, "lr": None}
    assert earlier["net"]["widths"] == [1]


def test_arguments_say_the_same_as_the_merged_overrides(recipe):
    given = {"lr": "0.2", "net": '{"widths": [3]}', "opt_class": "!name:torch.optim.Adam"}
    merged = merge(from_yaml(given))
    from_arguments, _ = parse_arguments([str(recipe), *as_arguments(merged)])
    for way in (from_arguments, Recipe(recipe, merged)):
        loaded = way.load()
        assert (loaded["lr"], loaded["net"]) == (0.2, {"depth": 2, "widths": [3]})
        assert loaded["opt_class"] is torch.optim.Adam


@pytest.mark.parametrize("path", ['a b/"c": #d é', "010", "null", "'x'", "<y> #z"])
def test_strings_keep_their_characters(recipe, path):
    arguments = as_arguments(merge({"out": Text(path)}))
    loaded = parse_arguments([str(recipe), *arguments])[0].load()
    assert loaded["path"] == f"{path}/save"


def test_options_are_all_values_with_references_resolved(recipe):
    assert resolved_options(Recipe(recipe, overrides("net: {depth: 5}\nlr: 0.3"))) == {
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
    before = resolved_options(Recipe(recipe))
    recipe.write_text(RECIPE.replace("# A comment.", "# Another."))
    assert resolved_options(Recipe(recipe)) == before


def test_what_cannot_be_combined_is_one_line(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"net: .* cannot be combined with 3"):
        merge({"net": 3}, overrides("net: {depth: 1}"))
    with pytest.raises(ConfigError, match=r"lr: .* cannot be combined"):
        resolved_options(Recipe(recipe, overrides("lr: {a: 1}")))
    with pytest.raises(ConfigError, match=r"absent\.yaml cannot be read"):
        resolved_options(Recipe(tmp_path / "absent.yaml"))
