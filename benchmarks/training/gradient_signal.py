#!/usr/bin/env python3
"""How much each part of the objective has to tell the encoder, beside the noise of its batches.

    python benchmarks/training/gradient_signal.py RUN [--batches 12] [--seconds 45]

``RUN`` is a recipe's output folder; the gradient of its newest checkpoint with respect to the
encoder's layers is taken on training batches, once without and once with augmentation. With g_i
that of batch i, ``|E g|^2`` is estimated by the mean of ``g_i . g_j`` over pairs of different
batches. The table has ``|E g| / std g``: the square of the ratio is how fast an optimizer that
normalises its steps can learn.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from trained import batches, load_newest

from todm_sb.losses.lattice import log_softmax
from todm_sb.losses.pruning import choose_band, ctc_lattice
from todm_sb.losses.transducer import lattice_loss
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.objective import ctc_loss
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.utils.arguments import at_least
from todm_sb.utils.errors import ConfigError, one_line_errors


def losses_of(model: Transducer, trunk: Trunk, labels: Labels, encoded: Tensor) -> dict:
    """Parts of the objective in nats a label."""
    lengths = trunk.n_frames, labels.lengths
    nodes = model.joiner, model.joiner.project_encoder(encoded), trunk.predictor, labels.ids
    log_probs = log_softmax(model.ctc_output(encoded))
    full = lattice_loss(*nodes, *lengths, model.blank)
    nobody = ctc_lattice(torch.zeros_like(log_probs), labels.ids, *lengths, model.blank)
    parts = {
        "CTC": ctc_loss(log_probs, trunk.n_frames, labels, model.blank),
        "full lattice": full.transducer,
    }
    for name, occupancy in (("5 rows by max", full.occupancy), ("5 rows by nobody", nobody)):
        band = choose_band(occupancy, *lengths, 5)
        parts[name] = lattice_loss(*nodes, *lengths, model.blank, band=band).transducer
    parts["1 CTC + full"] = parts["CTC"] + parts["full lattice"]
    n_labels = labels.lengths.sum()
    return {name: part.sum() / n_labels for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=at_least(2), default=12, help="at most")
    parser.add_argument("--seconds", type=float, default=45.0, help="audio of a batch")
    args = parser.parse_args()
    hparams = load_newest(args.run)
    hparams["max_batch_seconds"] = args.seconds
    model = hparams["model"]
    parameters = list(model.encoder.layers.parameters())
    print("| objective | augmented | signal to noise |\n| --- | --- | --- |")
    for augment in (False, True):
        sums, squares, n = {}, Counter(), 0
        for trunk, labels in batches(hparams, args.batches, "train_csv", augment):
            n += 1
            encoded = model.encoder.encode(trunk.frames, trunk.n_frames, None, trunk.shared)
            for name, loss in losses_of(model, trunk, labels, encoded).items():
                gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
                gradient = torch.cat([g.flatten() for g in gradients]).double()
                sums[name] = sums.get(name, 0) + gradient
                squares[name] += float(gradient @ gradient)
        if n < 2:
            raise ConfigError(f"{args.run} trains on {n} such batches: give fewer --seconds")
        for name, total in sums.items():
            signal = (float(total @ total) - squares[name]) / (n * (n - 1))
            noise = squares[name] / n - signal
            ratio = math.copysign(math.sqrt(abs(signal) / noise), signal)
            print(f"| {name} | {augment} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    with one_line_errors():
        main()
