"""What the cells of a comparison will take, before any of them is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from todm_sb.experiments.compare.cells import Cell
from todm_sb.experiments.compare.plan import INDIVIDUAL, TRIAL, TUNED
from todm_sb.experiments.compare.sizes import Size
from todm_sb.experiments.plan.plan import audio_of_batch, steps_of_epoch
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.cost import count_macs
from todm_sb.training.pace import pace_of

# Share of a step of max that no subnet changes: features, predictor, lattice, optimizer.
# Measured on a CPU core: 0.46 for mini_librispeech.yaml, 0.43 for mini_librispeech_table.yaml.
FIXED = 0.45

# Of the typical utterance whose multiply-accumulates are counted.
SECONDS, LABELS_A_SECOND = 12.3, 3.7


def steps_of_max(
    hparams: Mapping[str, Any], sizes: Sequence[Size], hours: float
) -> Callable[[Cell], float]:
    """How many steps of max alone take as long as the training of a cell: a step counts for each
    of its subnets :data:`FIXED`, and the rest in proportion to the multiply-accumulates.

    Args:
        hparams: the recipe, loaded.
        sizes: of the comparison.
        hours: of audio to train on.

    Returns:
        The number for a cell.
    """
    model, space = hparams["model"], hparams["space"]
    n_features = hparams["features"].n_frames(round(SECONDS * hparams["sample_rate"]))
    whole = count_macs(model, space.max, n_features, round(LABELS_A_SECOND * SECONDS))

    def share(subnet: SubnetConfig) -> float:
        macs = count_macs(model, subnet, n_features, round(LABELS_A_SECOND * SECONDS))
        return FIXED + (1 - FIXED) * macs / whole

    pace = pace_of(hparams, hparams.get("grad_accumulation_factor", 1), 1)
    n_steps = steps_of_epoch(3600 * hours, audio_of_batch(hparams), pace, 1)
    n_steps *= hparams["number_of_epochs"]
    alone = min(n_steps, hparams["sandwich_warmup"] / pace.reference_batches)
    of_size = {size.name: n_steps * share(size.subnet) for size in sizes}
    random_share = _mean_share(space, share)

    def of(cell: Cell) -> float:
        for name, n in of_size.items():
            own = INDIVIDUAL + name, TUNED + name
            if cell.name in own or cell.name.startswith(f"{TRIAL}{name}-lr"):
                return n
        n_random = int(cell.overrides.get("n_random", hparams["n_random"]))
        step = 1 + share(space.min) + n_random * random_share
        return alone + (n_steps - alone) * step

    return of


def _mean_share(space: SearchSpace, share: Callable[[SubnetConfig], float]) -> float:
    """Of a random subnet, about: what lies between min and max in the middle."""
    return (share(space.min) + share(space.max)) / 2


def estimate_text(cells: Sequence[Cell], steps: Callable[[Cell], float], seconds: float) -> str:
    """The processor time of the cells that are still to run, in words.

    Args:
        cells: the cells.
        steps: of :func:`steps_of_max`.
        seconds: processor seconds of a step of max alone.
    """
    hours = sum(steps(cell) for cell in cells) * seconds / 3600
    return f"{len(cells)} cells to run: about {hours:.1f} hours of processor time, validation apart"
