"""Sizes are uniform, different, and as evenly spread as the space allows."""

from functools import partial
from pathlib import Path

import pytest
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Text

from todm_sb.experiments.compare.recipe import load_for_planning
from todm_sb.experiments.compare.sizes import evenly_spaced_sizes, named_sizes
from todm_sb.space import SearchSpace
from todm_sb.supernet import count_parameters
from todm_sb.training.recipe import Recipe
from todm_sb.utils.errors import ConfigError

HPARAMS = Path(__file__).parents[3] / "recipes" / "LibriSpeech" / "todm" / "hparams"
SPACE = SearchSpace(6, 3, ffn_dims=(128, 256, 384))


def parameters(subnet):
    """100 a layer, and each width."""
    return sum(100 + width for width in subnet["ffn_dims"])


def test_five_sizes_lie_nearest_to_even_steps_from_min_to_max():
    sizes = evenly_spaced_sizes(SPACE, parameters)
    # From 684 to 2904 in steps of 555: 1239, 1794, 2349. Uniform subnets between have
    # 912, 1068, 1140, 1368, 1424, 1452, 1780, 1936, 2136 and 2420.
    assert [(size.name, size.parameters) for size in sizes] == [
        ("3x128", 684),
        ("5x128", 1140),
        ("5x256", 1780),
        ("5x384", 2420),
        ("6x384", 2904),
    ]
    assert sizes[0].subnet == SPACE.min
    assert sizes[-1].subnet == SPACE.max
    assert all(size.subnet in SPACE for size in sizes)


def test_a_space_without_so_many_uniform_subnets_is_named():
    with pytest.raises(ConfigError, match="at 5 sizes: the search space has 4"):
        evenly_spaced_sizes(SearchSpace(2, 1, ffn_dims=(16, 32)), parameters)


def test_sizes_can_be_those_that_the_recipe_names():
    middle = {"layers": [0, 2, 5], "ffn_dims": [384, 384, 384]}
    named = {"middle": middle, "none": None, "again": SPACE.max.to_dict()}
    sizes = named_sizes(SPACE, named, parameters)
    assert [(size.name, size.parameters) for size in sizes] == [
        ("3x128", 684),
        ("3x384", 1452),
        ("6x384", 2904),
    ]
    with pytest.raises(ConfigError, match="named_subnets: middle: "):
        named_sizes(SearchSpace(2, 1, ffn_dims=(16, 32)), {"middle": middle}, parameters)
    with pytest.raises(ConfigError, match="has one subnet"):
        named_sizes(SearchSpace(2, 2, ffn_dims=(16,)), None, parameters)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        # One network would stand for both, and the supernet measure one of them alone.
        ({"a": [[0, 2, 5], [384] * 3], "b": [[0, 1, 2], [384] * 3]}, "with both .*3x384 is one"),
        ({"a": [[0, 1, 2], [128] * 3]}, "with both .* a network of the size 3x128 is one"),
        ({"a": [[0, 2, 5], [384, 384, 256]]}, "has layers that are alike"),
    ],
)
def test_named_subnets_without_a_network_each_are_refused(named, message):
    named = {name: {"layers": x, "ffn_dims": widths} for name, (x, widths) in named.items()}
    with pytest.raises(ConfigError, match=message):
        named_sizes(SPACE, named, parameters)


def test_the_recipe_of_the_table_names_three_even_sizes():
    recipe = Recipe(HPARAMS / "mini_librispeech_table.yaml", {"data_folder": Text("-")})
    hparams = load_for_planning(recipe)
    space, count = hparams["space"], partial(count_parameters, hparams["model"])
    sizes = named_sizes(space, hparams["named_subnets"], count)
    assert [size.name for size in sizes] == ["3x192", "4x384", "6x576"]
    assert all(size.subnet in space.uniform() for size in sizes)
