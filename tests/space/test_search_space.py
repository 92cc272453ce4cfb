import itertools
import json
import random

import pytest

from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

DROPS = ["any", "top", "even"]
SMALL = [
    SearchSpace(n_layers, min_layers, drop, ffn_dims=ffn_dims)
    for drop in DROPS
    for n_layers, min_layers, ffn_dims in [
        (3, 1, (4, 8)),
        (4, 2, (4, 8, 16)),
        (5, 1, (4,)),
        (3, 3, (4, 8)),
        (1, 1, (4, 8, 16)),
    ]
]


def name(space):
    return f"{space.layer_drop}-{space.min_layers}to{space.n_layers}-{len(space['ffn_dims'])}widths"


small_spaces = pytest.mark.parametrize("space", SMALL, ids=name)


def all_subnets(space):
    """Every subnet of a space, from the words that define it."""
    subnets = set()
    for depth in range(space.min_layers, space.n_layers + 1):
        last = space.n_layers - 1
        if space.layer_drop == "any":
            choices = itertools.combinations(range(space.n_layers), depth)
        elif space.layer_drop == "top":
            choices = [tuple(range(depth))]
        elif depth == 1:
            choices = [(space.n_layers // 2,)]
        else:
            choices = [tuple(round(i * last / (depth - 1)) for i in range(depth))]
        for layers in choices:
            for widths in itertools.product(space["ffn_dims"], repeat=depth):
                subnets.add(SubnetConfig(layers, ffn_dims=widths))
    return subnets


def is_one_step(space, a, b):
    """One width a choice up or down; or one layer more, less or another, where a layer that stays
    keeps its width and any other has that of the nearest layer of ``a`` (the lower one of two)."""
    if a.layers == b.layers:
        steps = [
            abs(space["ffn_dims"].index(x) - space["ffn_dims"].index(y))
            for x, y in zip(a["ffn_dims"], b["ffn_dims"], strict=True)
        ]
        return sum(steps) == 1
    if abs(len(a.layers) - len(b.layers)) > 1:
        return False
    one_way, other_way = set(a.layers) - set(b.layers), set(b.layers) - set(a.layers)
    if space.layer_drop != "even" and max(len(one_way), len(other_way)) > 1:
        return False
    for layer, width in zip(b.layers, b["ffn_dims"], strict=True):
        nearest = min(a.layers, key=lambda x, layer=layer: (abs(x - layer), x))
        if width != a["ffn_dims"][a.layers.index(nearest)]:
            return False
    return True


def test_a_subnet_survives_json():
    config = SubnetConfig((0, 2, 5), ffn_dims=(128, 384, 128))
    assert SubnetConfig.from_json(config.to_json()) == config
    assert SubnetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert json.loads(config.to_json()) == {"layers": [0, 2, 5], "ffn_dims": [128, 384, 128]}
    assert "\n" not in config.to_json()


def test_a_subnet_is_a_key():
    a, b = SubnetConfig((0, 2), ffn_dims=(4, 8)), SubnetConfig([0, 2], ffn_dims=[4, 8])
    assert a == b
    assert len({a, b, SubnetConfig((0, 1), ffn_dims=(4, 8))}) == 2
    with pytest.raises(AttributeError):
        a.layers = (0, 1)


def test_ids_stay_the_same_over_versions():
    assert SubnetConfig((0, 2, 5), ffn_dims=(128, 384, 128)).id == "3L-455a9f0d"


def test_ids_tell_subnets_apart():
    subnets = all_subnets(SearchSpace(4, 1, ffn_dims=(4, 8, 16)))
    assert len({config.id for config in subnets}) == len(subnets)


@pytest.mark.parametrize(
    ("layers", "ffn_dims", "message"),
    [
        ((0, 1), (4,), "2 layers but 1 ffn_dims"),
        ((1, 0), (4, 4), "ascending"),
        ((1, 1), (4, 4), "ascending"),
        ((-1, 1), (4, 4), "ascending and >= 0"),
    ],
)
def test_a_subnet_that_makes_no_sense_is_refused(layers, ffn_dims, message):
    with pytest.raises(ConfigError, match=message):
        SubnetConfig(layers, ffn_dims=ffn_dims)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"ffn_dims": [4]}',
        '{"layers": [0], "ffn_dims": [4], "depth": 1}',
        '{"layers": [0], "ffn_dims": [4], "self": [1]}',
        '{"layers": 0, "ffn_dims": [4]}',
        '{"layers": ["0"], "ffn_dims": [4]}',
        '{"layers": [0], "ffn_dims": [4.0]}',
        '{"layers": [true], "ffn_dims": [4]}',
        '{"layers": "0", "ffn_dims": [4]}',
    ],
)
def test_what_is_no_subnet_is_refused_in_one_line(text):
    with pytest.raises(ConfigError) as caught:
        SubnetConfig.from_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, {"layers": [0], "ffn_dims": [1]}, 3])
def test_what_is_no_name_of_a_subnet_is_refused_in_one_line(wrong):
    with pytest.raises(ConfigError, match=r"unknown subnet .*: give one of max, min, or JSON"):
        SearchSpace(2, 1, ffn_dims=(1, 2)).named(wrong)


@small_spaces
def test_the_size_is_the_number_of_different_subnets(space):
    assert space.size == len(all_subnets(space))


def test_the_size_of_a_large_space_is_known_without_listing_it():
    space = SearchSpace(20, 10, ffn_dims=(512, 1024, 2048, 3072))
    subsets = [184756, 167960, 125970, 77520, 38760, 15504, 4845, 1140, 190, 20, 1]
    assert space.size == sum(n * 4**depth for n, depth in zip(subsets, range(10, 21), strict=True))


@small_spaces
def test_a_space_contains_exactly_its_subnets(space):
    subnets = all_subnets(space)
    universe = all_subnets(SearchSpace(space.n_layers + 1, 1, ffn_dims=(*space["ffn_dims"], 99)))
    assert subnets < universe
    for config in universe:
        assert (config in space) == (config in subnets)


@small_spaces
def test_max_and_min_are_the_largest_and_the_smallest(space):
    subnets = all_subnets(space)
    assert {space.max, space.min} <= subnets
    assert space.max["ffn_dims"] == tuple(space.sizes["ffn_dims"])
    for config in subnets:
        assert sum(space.min["ffn_dims"]) <= sum(config["ffn_dims"]) <= sum(space.max["ffn_dims"])
        assert len(space.min.layers) <= len(config.layers) <= len(space.max.layers)


@small_spaces
def test_random_covers_the_whole_space_and_nothing_else(space):
    rng = random.Random(0)
    assert {space.random(rng) for _ in range(60 * space.size)} == all_subnets(space)


def test_random_depths_are_uniform():
    space = SearchSpace(6, 3, ffn_dims=(4, 8))
    rng = random.Random(0)
    depths = [len(space.random(rng).layers) for _ in range(4000)]
    for depth in range(3, 7):
        assert depths.count(depth) / 4000 == pytest.approx(1 / 4, abs=0.03)


def test_a_share_of_random_subnets_has_layers_that_are_all_alike():
    space = SearchSpace(6, 3, ffn_dims=(4, 8, 12), n_heads=(2, 4))
    rng = random.Random(0)
    draws = [dict(space.random(rng, alike=0.5).choices) for _ in range(4000)]
    alike = [all(len(set(values)) == 1 for values in choices.values()) for choices in draws]
    # Drawn layer by layer, three layers are alike in both once in 324 draws, more of them less.
    assert sum(alike) / 4000 == pytest.approx(0.5, abs=0.03)
    widths = [x["ffn_dims"][0] for x, even in zip(draws, alike, strict=True) if even]
    for width in (4, 8, 12):
        assert widths.count(width) / len(widths) == pytest.approx(1 / 3, abs=0.05)
    uniform = SearchSpace(6, 3, ffn_dims=(4, 8, 12), layer_drop="even")
    assert {uniform.random(rng, alike=1) for _ in range(400)} == set(uniform.uniform())


def test_the_same_seed_draws_the_same():
    space = SearchSpace(6, 3, ffn_dims=(4, 8))
    draws = [[space.random(random.Random(seed)) for _ in range(5)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@small_spaces
def test_neighbours_are_exactly_the_subnets_one_step_away(space):
    subnets = all_subnets(space)
    for config in subnets:
        found = space.neighbours(config)
        assert len(found) == len(set(found))
        assert set(found) == {other for other in subnets if is_one_step(space, config, other)}


@pytest.mark.parametrize("space", [s for s in SMALL if s.layer_drop != "even"], ids=name)
def test_every_subnet_is_reached_from_the_max_over_neighbours(space):
    reached, new = {space.max}, {space.max}
    while new:
        new = {n for config in new for n in space.neighbours(config)} - reached
        reached |= new
    assert reached == all_subnets(space)


@small_spaces
def test_mutants_stay_in_the_space_and_differ_from_their_parent(space):
    subnets = all_subnets(space)
    rng = random.Random(0)
    for config in sorted(subnets, key=lambda c: c.id)[:40]:
        for rate in (0.0, 0.1, 0.5, 1.0):
            mutant = space.mutate(config, rng, rate=rate)
            assert mutant in subnets
            assert mutant != config or len(subnets) == 1


def test_layers_are_exchanged_though_the_depth_stays():
    space, rng = SearchSpace(4, 2, ffn_dims=(4, 8)), random.Random(0)
    mutants = [space.mutate(space.min, rng, rate=1.0) for _ in range(500)]
    found = {mutant.layers for mutant in mutants if len(mutant.layers) == 2}
    one_exchanged = {x for x in itertools.combinations(range(4), 2) if len({0, 3} & {*x}) == 1}
    assert space.min.layers == (0, 3)
    assert found == one_exchanged


def test_the_only_subnet_of_a_space_mutates_to_itself():
    space = SearchSpace(2, 2, ffn_dims=(4,))
    assert space.mutate(space.max, random.Random(0)) == space.max


def test_a_higher_rate_mutates_more():
    space = SearchSpace(8, 8, ffn_dims=(1, 2, 3, 4))
    rng = random.Random(0)

    mean = {}
    for rate in (0.1, 0.5):
        mutants = [space.mutate(space.max, rng, rate)["ffn_dims"] for _ in range(1000)]
        mean[rate] = sum(w != 4 for widths in mutants for w in widths) / 1000
    # A redraw leaves the width in 1 of 4 cases; where nothing changed, one step is taken instead.
    assert mean[0.5] == pytest.approx(8 * 0.5 * 0.75, abs=0.15)
    assert mean[0.1] == pytest.approx(8 * 0.1 * 0.75 + (1 - 0.075) ** 8, abs=0.15)


@small_spaces
def test_children_stay_in_the_space_and_take_after_their_parents(space):
    subnets = sorted(all_subnets(space), key=lambda c: c.id)
    rng = random.Random(0)
    for _ in range(300):
        a, b = rng.choice(subnets), rng.choice(subnets)
        child = space.crossover(a, b, rng)
        assert child in space
        assert len(child.layers) in (len(a.layers), len(b.layers))
        genes = {
            *zip(a.layers, a["ffn_dims"], strict=True),
            *zip(b.layers, b["ffn_dims"], strict=True),
        }
        assert set(zip(child.layers, child["ffn_dims"], strict=True)) <= genes
        assert space.crossover(a, a, rng) == a


@small_spaces
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_evenly_spaced_subnets_grow_from_min_to_max(space, n):
    configs = space.evenly_spaced(n)
    subnets = all_subnets(space)
    assert len(configs) == n
    assert (configs[0], configs[-1]) == (space.min, space.max)
    assert set(configs) <= subnets
    for a, b in itertools.pairwise(configs):
        assert len(a.layers) <= len(b.layers)
        assert sum(a["ffn_dims"]) <= sum(b["ffn_dims"])


def test_evenly_spaced_subnets_are_about_evenly_spaced():
    space = SearchSpace(8, 8, ffn_dims=(100, 200, 300))
    totals = [sum(config["ffn_dims"]) for config in space.evenly_spaced(5)]
    assert totals == [800, 1200, 1600, 2000, 2400]


def test_one_evenly_spaced_subnet_makes_no_sense():
    with pytest.raises(ConfigError, match="min to max"):
        SearchSpace(3, 1, ffn_dims=(4,)).evenly_spaced(1)


@small_spaces
def test_a_space_survives_json(space):
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert hash(again) == hash(space)


def test_any_subset_of_layers_is_the_default():
    space = SearchSpace.from_dict({"n_layers": 3, "min_layers": 1, "ffn_dims": [4]})
    assert space == SearchSpace(3, 1, "any", ffn_dims=(4,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_layer": 1}, "unknown key 'min_layer'; known are .*min_layers"),
        ({"min_layers": 0}, r"min_layers \(0\) must be in 1\.\.3"),
        ({"min_layers": 4}, r"min_layers \(4\) must be in 1\.\.3"),
        ({"n_layers": 0}, "min_layers"),
        ({"ffn_dims": []}, "ffn_dims must be ascending"),
        ({"ffn_dims": [8, 4]}, "ffn_dims must be ascending"),
        ({"ffn_dims": [4, 4]}, "ffn_dims must be ascending"),
        ({"ffn_dims": [0, 4]}, "ffn_dims must be positive"),
        ({"layer_drop": "bottom"}, "layer_drop must be one of .*'bottom'"),
    ],
)
def test_a_wrong_setting_of_a_space_is_named_in_one_line(changes, message):
    data = {"n_layers": 3, "min_layers": 1, "ffn_dims": [4, 8], **changes}
    with pytest.raises(ConfigError, match=message) as caught:
        SearchSpace.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["n_layers", "min_layers"])
def test_a_missing_setting_of_a_space_is_named(key):
    data = {"n_layers": 3, "min_layers": 1, "ffn_dims": [4, 8]}
    del data[key]
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        SearchSpace.from_dict(data)


@pytest.mark.parametrize(
    "outside",
    [
        SubnetConfig((0, 3), ffn_dims=(4, 4)),
        SubnetConfig((0, 1), ffn_dims=(4, 5)),
        SubnetConfig((0,), ffn_dims=(4,)),
    ],
)
def test_a_subnet_outside_the_space_is_refused_in_one_line(outside):
    space = SearchSpace(3, 2, ffn_dims=(4, 8))
    inside, rng = space.max, random.Random(0)
    assert space.check(inside) is inside
    for use in (
        lambda: space.check(outside),
        lambda: space.neighbours(outside),
        lambda: space.mutate(outside, rng),
        lambda: space.crossover(inside, outside, rng),
        lambda: space.crossover(outside, inside, rng),
    ):
        with pytest.raises(ConfigError, match="outside the search space") as caught:
            use()
        assert outside.to_json() in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_dimension_that_is_null_does_not_vary():
    plain = {"n_layers": 4, "min_layers": 2, "n_heads": [2, 4]}
    assert SearchSpace.from_dict({**plain, "ffn_dims": None}) == SearchSpace.from_dict(plain)
    with pytest.raises(ConfigError, match="n_layers"):
        SearchSpace.from_dict({**plain, "n_layers": None})
