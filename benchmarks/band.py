#!/usr/bin/env python3
"""How much of a trained network's lattice the band covers, by who chooses it.

    python benchmarks/band.py RUN [--batches 8]

``RUN`` is a recipe's output folder; its newest checkpoint reads batches of the dev set without
augmentation. Coverage is the share of the full lattice's occupancy (max subnet, its own joiner)
that lies in the band; in brackets, by how many nats a label the loss in the band is larger.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sentencepiece
import torch
from hyperpyyaml import load_hyperpyyaml
from torch.utils.data import DataLoader

from todm_sb.dataio.pipeline import make_dataset, make_loader_kwargs
from todm_sb.losses.lattice import log_softmax
from todm_sb.losses.pruning import Pruning, choose_band, ctc_lattice, simple_lattice
from todm_sb.losses.transducer import lattice_loss
from todm_sb.supernet.sandwich import Trunk

WIDTHS = (3, 5, 8, 12, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=int, default=8)
    args = parser.parse_args()
    with (args.run / "hyperparams.yaml").open() as file:
        hparams = load_hyperpyyaml(file)
    checkpoint = hparams["checkpointer"].recover_if_possible()
    model, features = hparams["model"].eval(), hparams["features"].eval()
    name = f"{hparams['vocab_size']}_{hparams['tokenizer_type']}.model"
    tokenizer = sentencepiece.SentencePieceProcessor(f"{hparams['tokenizer_folder']}/{name}")
    dataset = make_dataset(
        hparams["valid_csv"], tokenizer, lambda s: int(s * 1000), hparams["max_duration"]
    )
    loader = DataLoader(
        dataset, **make_loader_kwargs(dataset, hparams["max_batch_seconds"], seed=0)
    )
    covered, excess, n_steps, total_labels, total_ctc = {}, {}, 0.0, 0, 0.0
    full_loss = 0.0
    for i, batch in enumerate(loader):
        if i == args.batches:
            break
        ids, shares = batch.tokens
        n_labels = (shares * ids.shape[1]).round().long()
        with torch.no_grad():
            feats, n_feats = features(*batch.sig, epoch=99)
            trunk = Trunk.compute(model, feats, n_feats, ids)
            lengths = trunk.n_frames, n_labels
            encoded = model.encoder.encode(trunk.frames, trunk.n_frames, None, trunk.spectra)
            arguments = (
                model.joiner,
                model.joiner.project_encoder(encoded),
                trunk.predictor,
                ids,
                *lengths,
                model.blank,
            )
            full = lattice_loss(*arguments)
            log_probs = log_softmax(model.ctc_output(encoded))
            total_ctc += float(
                torch.nn.functional.ctc_loss(
                    log_probs.transpose(0, 1), ids, *lengths, reduction="sum", zero_infinity=True
                )
            )
            choosers = {
                "max": full.occupancy,
                "ctc": ctc_lattice(log_probs, ids, *lengths, model.blank),
                "uniform": ctc_lattice(torch.zeros_like(log_probs), ids, *lengths, model.blank),
            }
            if model.simple_joiner is not None:
                choosers["simple"] = simple_lattice(
                    model.simple_joiner.encoder(encoded),
                    trunk.simple_predictor,
                    ids,
                    *lengths,
                    model.blank,
                    Pruning(),
                )[1]
            n_steps += float(full.occupancy.sum())
            total_labels += int(n_labels.sum())
            full_loss += float(full.transducer.sum())
            for chooser, occupancy in choosers.items():
                for width in WIDTHS:
                    band = choose_band(occupancy, *lengths, width)
                    inside = lattice_loss(*arguments, band=band).transducer.sum()
                    key = chooser, width
                    more = float(inside - full.transducer.sum())
                    excess[key] = excess.get(key, 0.0) + more
                    here = float(band.take(full.occupancy).sum())
                    covered[key] = covered.get(key, 0.0) + here
    print(f"{args.run.name}, {checkpoint.path.name} {checkpoint.meta}")
    print(
        f"nats a label: CTC {total_ctc / total_labels:.2f}, "
        f"transducer {full_loss / total_labels:.2f}"
    )
    print("\n| band by | " + " | ".join(f"{w} rows" for w in WIDTHS) + " |")
    print("| --- |" + " --- |" * len(WIDTHS))
    for chooser in choosers:
        cells = (
            f"{covered[chooser, w] / n_steps:.3f} (+{excess[chooser, w] / total_labels:.2f})"
            for w in WIDTHS
        )
        print(f"| {chooser} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
