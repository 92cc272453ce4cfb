#!/usr/bin/env python3
"""What a trained network knows of its training data by heart: its losses there and on the dev set.

    cd benchmarks/training
    python by_heart.py ../../recipes/LibriSpeech/todm/results/mini_librispeech/1234 --batches=10

Nats a label of each loss of max, without augmentation, with a run's best weights. The CTC
head hears the encoder alone, the transducer the labels so far as well: where its gap is much the
larger, it is the predictor that knows the transcripts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from trained import batches

from todm_sb.training.runs import load_run
from todm_sb.utils.tables import table_of

MANIFESTS = {"training data": "train_csv", "dev set": "valid_csv"}


@torch.no_grad()
def nats_a_label(run: Path, n_batches: int) -> list[dict[str, str]]:
    """A row for each loss of a run.

    Args:
        run: ``output_folder`` of train.py.
        n_batches: of each manifest, the first ones.
    """
    hparams = load_run(run)
    rows: dict[str, dict[str, float]] = {}
    for name, manifest in MANIFESTS.items():
        n_labels = 0
        for trunk, labels in batches(hparams, n_batches, manifest):
            losses, _ = hparams["objective"](hparams["model"], trunk, labels, None)
            n_labels += int(labels.lengths.sum())
            for term, loss in losses.terms.items():
                row = rows.setdefault(term, dict.fromkeys(MANIFESTS, 0.0))
                row[name] += float(loss) * len(labels.lengths)
        for row in rows.values():
            row[name] /= n_labels
    return [
        {"loss": term, **{name: f"{loss:.2f}" for name, loss in row.items()}}
        for term, row in rows.items()
    ]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="output_folder of train.py")
    parser.add_argument("--batches", type=int, default=10, help="of each manifest")
    args = parser.parse_args()
    for run in args.runs:
        print(f"{run.name}\n\n{table_of(nats_a_label(run, args.batches))}\n")


if __name__ == "__main__":
    main()
