#!/usr/bin/env python3
"""RMS of the parameters of a training run, by kind, in each checkpoint that it has kept.

    python benchmarks/training/parameter_rms.py RUN

The range is over layers (and directions). For parameters that start at zero the RMS is how far they
have moved. A kind that the network does not have, as an encoder without SSMs, has no row.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
import yaml

from todm_sb.utils.tables import table_of

KINDS = ("log_decay", "frequency", "norm.*bias", "log_dt", "ssm.*D", "ssm.*C", "w_1.weight")


def rows(weights: dict[str, torch.Tensor]) -> list[dict[str, str]]:
    """A row a kind that there is."""
    found = []
    for kind in KINDS:
        rms = [
            float(w.float().square().mean().sqrt())
            for name, w in weights.items()
            if re.search(f"{kind}$", name)
        ]
        if rms:
            span = f"{min(rms):.2g} to {max(rms):.2g}"
            found.append({"kind": kind, "tensors": str(len(rms)), "RMS": span})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    checkpoints = sorted(run.glob("save/CKPT*"))
    if not checkpoints:
        raise SystemExit(f"{run} has no checkpoint: give the output folder of a training")
    for path in checkpoints:
        weights = torch.load(path / "model.ckpt", weights_only=True, map_location="cpu")
        epoch = yaml.safe_load((path / "CKPT.yaml").read_text()).get("epoch")
        print(f"\n{run.name}, epoch {epoch}\n\n{table_of(rows(weights))}")


if __name__ == "__main__":
    main()
