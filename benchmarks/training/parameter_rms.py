#!/usr/bin/env python3
"""RMS of the parameters of a training run, by kind, in each checkpoint that it has kept.

    python benchmarks/training/parameter_rms.py RUN

The range is over layers (and directions). For parameters that start at zero the RMS is how far they
have moved.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch
import yaml

KINDS = ("log_decay", "frequency", "norm.*bias", "log_dt", "ssm.*D", "ssm.*C", "w_1.weight")


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("save/CKPT*")):
        weights = torch.load(path / "model.ckpt", weights_only=True, map_location="cpu")
        epoch = yaml.safe_load((path / "CKPT.yaml").read_text()).get("epoch")
        print(f"\n{Path(sys.argv[1]).name}, epoch {epoch}\n")
        print("| kind | tensors | RMS |\n| --- | --- | --- |")
        for kind in KINDS:
            rms = [
                float(w.float().square().mean().sqrt())
                for name, w in weights.items()
                if re.search(f"{kind}$", name)
            ]
            print(f"| {kind} | {len(rms)} | {min(rms):.2g} to {max(rms):.2g} |")


if __name__ == "__main__":
    main()
