"""Which cells a comparison has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

from todm_sb.experiments.compare.cells import Cell
from todm_sb.experiments.compare.sizes import Size
from todm_sb.experiments.compare.tuning import Run, Tuning
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.utils.errors import ConfigError

SUPERNET = "supernet"
INDIVIDUAL = "individual-"
ABLATION = "ablation-"
TUNED = "tuned-"
TRIAL = "trial-"
ADAMW = "ablation-adamw"

# What a tuned individual network tries, in multiples of the recipe's: eight trials, one of which is
# the recipe's own.
TRIED_RATES = (1.0, 0.5, 1.5, 2.0)
TRIED_DROPOUTS = (1.0, 2.0)

# Numbers of random subnets a step that the ablation tries.
N_RANDOM = (0, 1, 2, 4)

NO_ADAPTIVE_DROPOUT = {"model": "{encoder: {adaptive_dropout: False}}"}
NO_KD = {"objective": "{kd_weight: 0.0}"}
KL = {"objective": "{divergence: {alphas: [1]}}"}
THREE_CLASSES = {"objective": "{divergence: {classes: three}}"}


@dataclass(frozen=True)
class CellPlan:
    """Which cells there are, for every run; a run is a fold of the data and a seed.

    Args:
        sizes: from min to max.
        named_subnets: those that the recipe measures, and the comparison does not.
        n_random: random subnets a step in the recipe.
        adamw_lrs: learning rates of AdamW; of several, that with the lowest error rate on dev.
        rate: learning rate of the recipe.
        dropouts: of the recipe's encoder and predictor.
        tuned: the size whose individual network is also trained with the best rate and dropout of
            a grid; None for none.
    """

    sizes: Sequence[Size]
    named_subnets: Iterable[str]
    n_random: int
    adamw_lrs: Sequence[float] = (0.001,)
    rate: float = 0.0
    dropouts: tuple[float, float] = (0.0, 0.0)
    tuned: Size | None = None

    def cells(self, runs: Sequence[Run], tried: Run | None = None) -> list[Cell]:
        """The cells that wait for no choice, and the trials: for each run the supernet, an
        individual network of each size, and the ablation.

        Args:
            runs: all.
            tried: that the trials are of; the first when None.
        """
        measured = self._measured()
        networks = {SUPERNET: measured}
        for size in reversed(self.sizes):
            networks[INDIVIDUAL + size.name] = individual(size.subnet)
        for name, overrides in ablations(self.n_random, self.adamw_lrs[0]).items():
            if len(self.adamw_lrs) == 1 or "opt_class" not in overrides:
                networks[ABLATION + name] = {**measured, **overrides}
        cells = [Cell(name, seed, o, fold) for fold, seed in runs for name, o in networks.items()]
        return [*cells, *(trial for x in self.tunings(tried or runs[0]) for trial in x.trials)]

    def tunings(self, run: Run) -> list[Tuning]:
        """What is chosen on dev.

        Args:
            run: that the trials are of.
        """
        found = []
        if len(self.adamw_lrs) > 1:
            found.append(self._tuned_adamw(*run))
        if self.tuned is not None:
            found.append(self._tuned_individual(self.tuned, *run))
        return found

    def _tuned_adamw(self, fold: str, seed: int) -> Tuning:
        def of(rate: float) -> dict[str, dict[str, str]]:
            return {
                ABLATION + name: {**self._measured(), **overrides}
                for name, overrides in ablations(self.n_random, rate).items()
                if "opt_class" in overrides
            }

        serves = tuple(of(self.adamw_lrs[0]))
        trials = [
            Cell(f"{TRIAL}adamw-{rate:g}", seed, of(rate)[ADAMW], fold, serves=serves)
            for rate in self.adamw_lrs
        ]
        return Tuning(ADAMW, tuple(trials), lambda best: _without(ADAMW, of(_rate_of(best))))

    def _tuned_individual(self, size: Size, fold: str, seed: int) -> Tuning:
        name, plain = TUNED + size.name, individual(size.subnet)
        trials = []
        for rate, dropout in product(TRIED_RATES, TRIED_DROPOUTS):
            overrides, place = dict(plain), None
            if (rate, dropout) == (1.0, 1.0):  # as it is trained anyway
                place = INDIVIDUAL + size.name
            else:
                encoder, predictor = (f"{{dropout: {dropout * x:g}}}" for x in self.dropouts)
                overrides["lr"] = f"{rate * self.rate:g}"
                overrides["model"] = f"{{encoder: {encoder}, predictor: {predictor}}}"
            trial = f"{TRIAL}{size.name}-lr{rate:g}-dropout{dropout:g}"
            trials.append(Cell(trial, seed, overrides, fold, place, (name,)))
        return Tuning(name, tuple(trials))

    def _measured(self) -> dict[str, str]:
        """Has a supernet measure these sizes and no others; min and max it measures anyway."""
        named: dict[str, dict | None] = dict.fromkeys(self.named_subnets)
        named.update({size.name: size.subnet.to_dict() for size in self.sizes[1:-1]})
        return {"named_subnets": json.dumps(named)}


def _rate_of(cell: Cell) -> float:
    return float(cell.overrides["lr"])


def _without(name: str, of: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {key: value for key, value in of.items() if key != name}


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
    """The cells whose names fit a pattern such as ``individual-*``, and the trials for them.

    Raises:
        ConfigError: if a pattern fits none.
    """
    for pattern in patterns:
        if not any(_fits(cell, pattern) for cell in cells):
            names = ", ".join(dict.fromkeys(x for cell in cells for x in _names(cell)))
            raise ConfigError(f"--cells={pattern} fits none of {names}")
    return [cell for cell in cells if any(_fits(cell, pattern) for pattern in patterns)]


def _fits(cell: Cell, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in _names(cell))


def _names(cell: Cell) -> tuple[str, ...]:
    return (cell.name, *cell.serves)
