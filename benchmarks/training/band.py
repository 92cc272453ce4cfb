#!/usr/bin/env python3
"""How much of a trained network's lattice the band covers, by who chooses it.

    python benchmarks/training/band.py RUN [--batches 8]

``RUN`` is a recipe's output folder; its newest checkpoint is given batches of the dev set without
augmentation. Coverage is the share of the full lattice's occupancy (max subnet, its own joiner)
that lies in the band; in brackets, by how many nats a label the loss in the band is larger, and how
much of its own occupancy the chooser believes to be in the band.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from trained import batches, load_newest

from todm_sb.losses.lattice import log_softmax
from todm_sb.losses.pruning import Pruning, choose_band, ctc_lattice, simple_lattice
from todm_sb.losses.transducer import lattice_loss
from todm_sb.supernet.objective import ctc_loss

WIDTHS = (3, 5, 8, 12, 20)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=int, default=8)
    args = parser.parse_args()
    hparams = load_newest(args.run)
    model = hparams["model"]
    sums, covered, excess, believed = Counter(), Counter(), Counter(), Counter()
    for trunk, labels in batches(hparams, args.batches):
        lengths = trunk.n_frames, labels.lengths
        encoded = model.encoder.encode(trunk.frames, trunk.n_frames, None, trunk.shared)
        nodes = model.joiner, model.joiner.project_encoder(encoded), trunk.predictor, labels.ids
        full = lattice_loss(*nodes, *lengths, model.blank)
        log_probs = log_softmax(model.ctc_output(encoded))
        by_ctc = labels.ids, *lengths, model.blank
        choosers = {
            "max": full.occupancy,
            "ctc": ctc_lattice(log_probs, *by_ctc),
            "nobody": ctc_lattice(torch.zeros_like(log_probs), *by_ctc),
        }
        if model.simple_joiner is not None:
            logits = model.simple_joiner.encoder(encoded), trunk.simple_predictor
            choosers["simple"] = simple_lattice(*logits, *by_ctc, Pruning())[1]
        sums["labels"] += int(labels.lengths.sum())
        sums["occupancy"] += float(full.occupancy.sum())
        sums["transducer"] += float(full.transducer.sum())
        sums["ctc"] += float(ctc_loss(log_probs, trunk.n_frames, labels, model.blank).sum())
        for chooser, occupancy in choosers.items():
            for width in WIDTHS:
                band = choose_band(occupancy, *lengths, width)
                loss = lattice_loss(*nodes, *lengths, model.blank, band=band).transducer
                covered[chooser, width] += float(band.take(full.occupancy).sum())
                believed[chooser, width] += float(band.take(occupancy).sum())
                excess[chooser, width] += float((loss - full.transducer).sum())
    ctc, transducer = (sums[name] / sums["labels"] for name in ("ctc", "transducer"))
    print(f"nats a label: CTC {ctc:.2f}, transducer {transducer:.2f}\n")
    print("| band by | " + " | ".join(f"{width} rows" for width in WIDTHS) + " |")
    print("| --- |" + " --- |" * len(WIDTHS))
    for name in choosers:
        cells = (
            f"{covered[name, w] / sums['occupancy']:.3f} (+{excess[name, w] / sums['labels']:.2f}, "
            f"{believed[name, w] / sums['occupancy']:.3f})"
            for w in WIDTHS
        )
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
