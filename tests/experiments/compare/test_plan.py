"""Each cell changes in the recipe what its name says, and nothing else."""

from pathlib import Path

import pytest

from todm_sb.experiments.compare.cells import Runs
from todm_sb.experiments.compare.plan import CellPlan, choose
from todm_sb.experiments.compare.sizes import Size
from todm_sb.space import SearchSpace
from todm_sb.training.recipe import Recipe
from todm_sb.utils.errors import ConfigError

MINI = Path(__file__).parents[3] / "recipes" / "LibriSpeech" / "todm" / "hparams" / "mini.yaml"
SPACE = SearchSpace(6, 3, ffn_dims=(128, 256, 384))
SIZES = [Size(subnet, 10 * i) for i, subnet in enumerate((SPACE.min, SPACE.max), 1)]
MIDDLE = Size(SearchSpace(6, 4, ffn_dims=(256,)).min, 15)
SIZES.insert(1, MIDDLE)


@pytest.fixture(scope="module")
def cells():
    return CellPlan(SIZES, ["wide", "deep"], n_random=2).cells([("", 1), ("", 2)])


@pytest.fixture(scope="module")
def changed(cells, tmp_path_factory):
    """What a cell changes in the supernet's options, by its name."""
    runs = Runs(tmp_path_factory.mktemp("compare"), Recipe(MINI))
    of = {cell.name: runs.options(cell) for cell in cells if cell.seed == 1}

    def changed(name):
        supernet, own = of["supernet"], of[name]
        different = {key for key in {*supernet, *own} if supernet.get(key) != own.get(key)}
        return {key: own.get(key) for key in different if "FOLDER" not in str(own.get(key))}

    return changed


def test_every_cell_has_every_seed(cells):
    names = [cell.name for cell in cells if cell.seed == 1]
    assert names == [cell.name for cell in cells if cell.seed == 2]
    assert names[:4] == ["supernet", "individual-6x384", "individual-4x256", "individual-3x128"]
    assert all(name.startswith("ablation-") for name in names[4:])
    assert len({cell.id for cell in cells}) == len(cells)


def test_the_supernet_measures_the_sizes_alone(cells):
    runs = Runs(Path("results"), Recipe(MINI))
    assert runs.overrides(cells[0])["named_subnets"] == {
        "wide": None,
        "deep": None,
        "4x256": {"layers": list(MIDDLE.subnet.layers), "ffn_dims": [256] * 4},
    }


def test_an_individual_network_differs_in_its_search_space_alone(changed):
    found = changed("individual-4x256")
    space = {key: value for key, value in found.items() if key.startswith("search_space")}
    assert space == {
        "search_space.n_layers": "4",
        "search_space.min_layers": "4",
        "search_space.ffn_dims.0": "256",
        "search_space.ffn_dims.1": None,
        "search_space.ffn_dims.2": None,
    }
    # The recipe builds the space from the same key; of itself it measures only max.
    others = {key.split(".")[0] for key in found} - {"search_space"}
    assert others <= {"space", "named_subnets"}


def test_each_ablation_changes_its_technique(changed):
    dropout, kd = "model.encoder.adaptive_dropout", "objective.kd_weight"
    alphas = {"objective.divergence.alphas.0": "1", "objective.divergence.alphas.1": None}
    adamw = {
        "opt_class": "!name:torch.optim.AdamW",
        "opt_class.lr": None,
        "lr": "0.001",
        "lr_annealing.lr_initial": "0.001",
        "max_grad_norm": "5.0",
    }
    assert changed("ablation-no-adaptive-dropout") == {dropout: "false"}
    assert changed("ablation-kd-none") == {kd: "0.0"}
    assert changed("ablation-kd-kl") == alphas
    assert changed("ablation-kd-three-classes") == {"objective.divergence.classes": "three"}
    assert changed("ablation-adamw") == adamw
    assert changed("ablation-random-0") == {"n_random": "0"}
    assert changed("ablation-plain") == {dropout: "false", kd: "0.0", **adamw}
    assert changed("ablation-plain-kl") == {dropout: "false", **alphas, **adamw}


def test_the_number_of_random_subnets_that_the_recipe_has_is_no_ablation(cells):
    random = {cell.name for cell in cells if "random" in cell.name}
    assert random == {"ablation-random-0", "ablation-random-1", "ablation-random-4"}


def test_patterns_choose_cells(cells):
    chosen = choose(cells, ["individual-*", "ablation-plain"])
    assert [cell.name for cell in chosen if cell.seed == 2] == [
        "individual-6x384",
        "individual-4x256",
        "individual-3x128",
        "ablation-plain",
    ]
    with pytest.raises(ConfigError, match="--cells=none fits none of supernet, "):
        choose(cells, ["none"])


RATES = (0.0005, 0.001)
TUNING = CellPlan(SIZES, [], 2, RATES, rate=0.05, dropouts=(0.1, 0.2), tuned=MIDDLE)
FOLDS = [("a", 1), ("b", 1)]


def test_every_fold_has_its_cells_and_the_first_the_trials():
    cells = TUNING.cells(FOLDS)
    ids = [cell.id for cell in cells]
    assert ids[0] == "supernet/a-1"
    assert {"supernet/b-1", "individual-4x256/b-1", "ablation-kd-none/b-1"} <= {*ids}
    trials = [cell.id for cell in cells if cell.serves]
    assert trials[:2] == ["trial-adamw-0.0005/a-1", "trial-adamw-0.001/a-1"]
    # One of the eight is the network as it is trained anyway.
    assert trials[2] == "individual-4x256/a-1"
    assert len(set(trials)) == 2 + 8
    assert all(name.endswith("/a-1") for name in trials)
    # Nothing with AdamW is run at a rate that nobody chose.
    assert not [name for name in ids if name.startswith(("ablation-adamw", "ablation-plain"))]


def test_a_trial_changes_rate_and_dropout_alone(tmp_path):
    runs = Runs(tmp_path, Recipe(MINI))
    plain, *others = [cell for cell in TUNING.cells(FOLDS) if cell.serves == ("tuned-4x256",)]
    own = runs.options(plain)
    found = set()
    for cell in others:
        options = runs.options(cell)
        changed = {k: v for k, v in options.items() if own[k] != v and "FOLDER" not in v}
        rate = changed.pop("lr", "0.05")
        for key in ("opt_class.lr", "lr_annealing.lr_initial"):
            assert changed.pop(key, "0.05") == rate
        dropout = changed.pop("model.encoder.dropout", "0.1")
        # As many times its own, which mini.yaml has at 0.1; the plan was told 0.2.
        assert changed == {"model.predictor.dropout": {"0.1": "0.2", "0.2": "0.4"}[dropout]}
        found.add((rate, dropout))
    assert len(found) == 7


def test_a_name_that_waits_for_trials_chooses_them():
    chosen = choose(TUNING.cells(FOLDS), ["tuned-*", "ablation-plain"])
    assert {cell.name.split("-")[1] for cell in chosen} == {"4x256", "adamw"}
