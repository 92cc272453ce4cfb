"""A recipe's schedule on so many GPUs: steps, and the learning rates that its own Eden gives.

    python benchmarks/schedule.py recipes/LibriSpeech/todm/hparams/supernet.yaml

Nothing is trained and no data are read: an epoch has as many steps as ``todm-sb plan`` counts for
``--hours`` of audio (LibriSpeech's by default). Overrides of the recipe follow, as for
``train.py``; with ``--reference_batch_seconds=null --grad_accumulation_factor=1`` each step is a
reference batch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml.comments import CommentedMap

from todm_sb.experiments.plan.plan import Data, audio_of_batch, steps_of_epoch
from todm_sb.optim import Eden
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.pace import Pace, pace_of
from todm_sb.training.recipe import dump, load_text, yaml_of
from todm_sb.training.settings import check_settings
from todm_sb.utils.tables import table_of

# What of a recipe is built.
KEYS = (
    *("lr", "lr_annealing", "number_of_epochs", "sandwich_warmup"),
    *("max_batch_seconds", "reference_batch_seconds", "grad_accumulation_factor", "wav_augment"),
)
RECIPE = Path(__file__).parents[1] / "recipes/LibriSpeech/todm/hparams/supernet.yaml"


@dataclass(frozen=True)
class Course:
    """What becomes of the learning rate in a training.

    Args:
        rates: of each step.
        batches: reference batches before each step, and at the end.
    """

    rates: list[float]
    batches: list[float]

    def steps(self, batches: float) -> int:
        """Steps that have begun before so many reference batches."""
        return sum(x < batches for x in self.batches[:-1])


def course_of(eden: Eden, pace: Pace, n_epochs: int, steps_an_epoch: int) -> Course:
    """Takes the steps of a training, but for the network.

    Args:
        eden: that has not begun.
        pace: of the training.
        n_epochs: passes over the data.
        steps_an_epoch: of the optimizer.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=eden.lr_initial)
    rates, batches = [], [eden.batch]
    for epoch in range(n_epochs):
        eden.set_epoch(epoch)
        eden.apply(optimizer)
        for _ in range(steps_an_epoch):
            used, _ = eden(optimizer, pace.reference_batches)
            rates.append(used)
            batches.append(eden.batch)
    return Course(rates, batches)


def read_hparams(argv: Sequence[str]) -> dict[str, Any]:
    """The schedule of a recipe; see :data:`KEYS`."""
    recipe, options = parse_arguments([*argv, "--data_folder=-"])
    given = {name: getattr(options, name) for name in options.overridden_args}
    check_settings({**recipe.settings(), **given})
    tree = yaml_of().load(recipe.text())
    part = CommentedMap((key, tree[key]) for key in KEYS if key in tree)
    return {**load_text(dump(part), recipe.file), **given}


def row_of(argv: Sequence[str], n_ranks: int, hours: float) -> dict[str, str]:
    """A row of the table."""
    hparams = read_hparams(argv)
    pace = pace_of(hparams, hparams.get("grad_accumulation_factor", 1), n_ranks)
    n_steps = steps_of_epoch(3600 * hours, audio_of_batch(hparams), pace, n_ranks)
    seconds = hparams["max_batch_seconds"]
    eden, n_epochs = hparams["lr_annealing"], hparams["number_of_epochs"]
    course = course_of(eden, pace, n_epochs, n_steps)
    return {
        "GPUs": str(n_ranks),
        "`grad_accumulation_factor`": str(pace.grad_accumulation_factor),
        "audio a step, s": f"{pace.grad_accumulation_factor * seconds * n_ranks:,.0f}",
        "passes": str(n_epochs),
        "steps": f"{len(course.rates):,}",
        "warm-up, steps": f"{course.steps(eden.warmup_batches):,}",
        "max alone, steps": f"{course.steps(hparams['sandwich_warmup']):,}",
        "lr at first": f"{course.rates[0]:.4f}",
        "highest": f"{max(course.rates):.4f}",
        "half-way": f"{course.rates[len(course.rates) // 2]:.5f}",
        "at last": f"{course.rates[-1]:.5f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("recipe", nargs="?", default=str(RECIPE), help="the YAML")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 8, 64])
    parser.add_argument("--hours", type=float, default=Data.hours, help="of training data")
    args, overrides = parser.parse_known_args()
    argv = [args.recipe, *overrides]
    print(table_of([row_of(argv, n, args.hours) for n in args.gpus]))


if __name__ == "__main__":
    main()
