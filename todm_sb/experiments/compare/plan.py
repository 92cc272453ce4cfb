"""Which cells a comparison has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from todm_sb.experiments.compare.cells import Cell
from todm_sb.experiments.compare.sizes import Size
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

SUPERNET = "supernet"
INDIVIDUAL = "individual-"
ABLATION = "ablation-"

# Numbers of random subnets a step that the ablation tries.
N_RANDOM = (0, 1, 2, 4)

NO_ADAPTIVE_DROPOUT = {"model": "{encoder: {adaptive_dropout: False}}"}
NO_KD = {"objective": "{kd_weight: 0.0}"}
KL = {"objective": "{divergence: {alphas: [1]}}"}
THREE_CLASSES = {"objective": "{divergence: {classes: three}}"}


def plan_cells(
    sizes: Sequence[Size],
    named_subnets: Iterable[str],
    n_random: int,
    seeds: Sequence[int],
    adamw_lr: float = 0.001,
) -> list[Cell]:
    """The cells of a comparison: for each seed the supernet, an individual network of each size,
    and the ablation.

    Args:
        sizes: from min to max.
        named_subnets: those that the recipe measures, and the comparison does not.
        n_random: random subnets a step in the recipe.
        seeds: of the runs.
        adamw_lr: learning rate of AdamW.
    """
    measured = _measured(sizes, named_subnets)
    networks = {SUPERNET: measured}
    for size in reversed(sizes):
        networks[INDIVIDUAL + size.name] = individual(size.subnet)
    for name, overrides in ablations(n_random, adamw_lr).items():
        networks[ABLATION + name] = {**measured, **overrides}
    return [Cell(name, seed, overrides) for seed in seeds for name, overrides in networks.items()]


def individual(subnet: SubnetConfig) -> dict[str, str]:
    """Trains a network of a subnet's size by itself: a search space of one point."""
    space = SearchSpace.of_one(subnet).to_dict()
    del space["layer_drop"]  # nothing is dropped: the recipe's own stays
    return {"search_space": json.dumps(space)}


def ablations(n_random: int, adamw_lr: float) -> dict[str, dict[str, str]]:
    """What each row of the ablation changes in the recipe, by its name.

    ``plain`` is the sandwich without all three techniques: adaptive dropout, alpha-divergence
    distillation, ScaledAdam; ``plain-kl`` has KL in place of the alpha-divergence.

    Args:
        n_random: random subnets a step in the recipe.
        adamw_lr: learning rate of AdamW.
    """
    # AdamW does not clip gradients itself; 5 is SpeechBrain's default.
    adamw = {"opt_class": "!name:torch.optim.AdamW", "lr": str(adamw_lr), "max_grad_norm": "5.0"}
    return {
        "no-adaptive-dropout": NO_ADAPTIVE_DROPOUT,
        "kd-none": NO_KD,
        "kd-kl": KL,
        "kd-three-classes": THREE_CLASSES,
        "adamw": adamw,
        **{f"random-{n}": {"n_random": str(n)} for n in N_RANDOM if n != n_random},
        "plain": {**NO_ADAPTIVE_DROPOUT, **NO_KD, **adamw},
        "plain-kl": {**NO_ADAPTIVE_DROPOUT, **KL, **adamw},
    }


def choose(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose names fit a pattern such as ``individual-*``.

    Raises:
        ConfigError: if a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in cells):
            names = ", ".join(dict.fromkeys(cell.name for cell in cells))
            raise ConfigError(f"--cells={pattern} fits none of {names}")
    return [cell for cell in cells if any(fnmatchcase(cell.name, p) for p in patterns)]


def _measured(sizes: Sequence[Size], named_subnets: Iterable[str]) -> dict[str, str]:
    """Has a supernet measure these sizes and no others; min and max it measures anyway."""
    named: dict[str, dict | None] = dict.fromkeys(named_subnets)
    named.update({size.name: size.subnet.to_dict() for size in sizes[1:-1]})
    return {"named_subnets": json.dumps(named)}
