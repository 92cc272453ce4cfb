#!/usr/bin/env python3
"""How hard distillation pulls at a trained supernet's students, beside their own losses.

    python benchmarks/training/distillation.py RUN [--batches 8]

``RUN`` is a recipe's output folder; its newest checkpoint is given batches of the dev set. For the
min subnet and a random one a batch, prints the norm of the divergence's gradient (at weight 1) over
that of transducer and CTC loss, and their cosine, by group of parameters.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch.nn.functional import cosine_similarity
from trained import batches, load_newest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--batches", type=int, default=8)
    args = parser.parse_args()
    hparams = load_newest(args.run)
    model, space, rng = hparams["model"], hparams["space"], random.Random(0)
    objective = replace(hparams["objective"], kd_weight=1.0)
    groups = {
        "encoder": list(model.encoder.layers.parameters()),
        "joiner": list(model.joiner.parameters()),
        "predictor": list(model.predictor.parameters()),
    }
    shares, found = defaultdict(list), defaultdict(list)
    for trunk, labels in batches(hparams, args.batches):
        _, lead = objective(model, trunk, labels, space.max)
        for student, subnet in (("min", space.min), ("random", space.random(rng))):
            losses, _ = objective(model, trunk, labels, subnet, lead)
            hard = losses.terms["transducer"] + objective.ctc_weight * losses.terms["ctc"]
            shares[student].append(float((losses.terms["kd"] / hard).detach()))
            for group, parameters in groups.items():
                of_hard, of_kd = (
                    torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                    for loss in (hard, losses.terms["kd"])
                )
                both = [(a, b) for a, b in zip(of_hard, of_kd, strict=True) if b is not None]
                a, b = (torch.cat([x.flatten() for x in side]) for side in zip(*both, strict=True))
                found[student, group].append((b.norm() / a.norm(), cosine_similarity(a, b, 0)))
    for student, values in shares.items():
        print(f"{student}: divergence over its own losses {fmean(values):.4f}")
    print("\n| student | parameters | norm ratio at weight 1 | cosine |\n| --- | --- | --- | --- |")
    for (student, group), values in found.items():
        ratio, cosine = (fmean(map(float, column)) for column in zip(*values, strict=True))
        print(f"| {student} | {group} | {ratio:.3f} | {cosine:.2f} |")


if __name__ == "__main__":
    main()
