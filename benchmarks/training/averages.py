#!/usr/bin/env python3
"""Dev error rates of the epochs of a run with ``average_every``: of the weights at an epoch's end,
of their mean within it, and of either averaged over three epochs.

    cd benchmarks/training
    python averages.py RUN 5 7 8 9

Of the epochs named and the two before each the checkpoints have to be there: train with an
``avg_checkpoints`` of all epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from speechbrain.utils.checkpoints import Checkpoint, average_state_dicts
from validation import brain_of, dev_rates

from todm_sb.training.checkpoints import AVERAGE, MEAN
from todm_sb.training.runs import dev_dataset, load_hparams, run_tokenizer
from todm_sb.utils.errors import ConfigError, one_line_errors
from todm_sb.utils.tables import table_of

EPOCHS = 3


def weights_of(checkpoint: Checkpoint, within: bool) -> dict[str, Any]:
    """Those at the end of a checkpoint's epoch, or their mean within it."""
    path = checkpoint.paramfiles[AVERAGE if within else "model"]
    found = torch.load(path, map_location="cpu")
    return found[MEAN] if within else found


def checkpoints_of(hparams: dict[str, Any]) -> dict[int, Checkpoint]:
    """By epoch, those of ends of epochs.

    Raises:
        ConfigError: if one holds no mean.
    """
    found = hparams["checkpointer"].find_checkpoints(ckpt_predicate=lambda c: "epoch" in c.meta)
    if lacking := [c.path.name for c in found if AVERAGE not in c.paramfiles]:
        raise ConfigError(f"{lacking[0]} holds no mean: train with --average_every")
    return {checkpoint.meta["epoch"]: checkpoint for checkpoint in found}


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, help="output_folder of train.py")
    parser.add_argument("epochs", type=int, nargs="+")
    arguments = parser.parse_args()
    hparams = load_hparams(arguments.run)
    checkpoints = checkpoints_of(hparams)
    wanted = {n for last in arguments.epochs for n in range(last - EPOCHS + 1, last + 1)}
    if missing := sorted(wanted - checkpoints.keys()):
        raise ConfigError(f"{arguments.run} has no checkpoint of epoch {missing[0]}")
    tokenizer = run_tokenizer(hparams)
    data = dev_dataset(hparams, tokenizer)
    # Statistics of features, and that no subnet but max is left out.
    hparams["checkpointer"].load_checkpoint(checkpoints[max(checkpoints)])
    brain = brain_of(hparams, tokenizer)
    rows = []
    for last in arguments.epochs:
        for name, n, within in (
            ("at its end", 1, False),
            ("mean within it", 1, True),
            (f"mean of {EPOCHS} ends", EPOCHS, False),
            (f"mean within the last {EPOCHS}", EPOCHS, True),
        ):
            some = [checkpoints[epoch] for epoch in range(last - n + 1, last + 1)]
            mean = average_state_dicts(weights_of(checkpoint, within) for checkpoint in some)
            brain.modules.model.load_state_dict(mean)
            rates = dev_rates(brain, data)
            told = {k: f"{x['WER']:.1f} / {x['CER']:.1f}" for k, x in rates.items()}
            rows.append({"after epoch": str(last), "weights": name, **told})
    print(table_of(rows))


if __name__ == "__main__":
    with one_line_errors():
        main()
