"""How near the table of todm-sb latency comes to the times of subnets that it was not fitted to.

    python benchmarks/device_latency.py RUN

Probes and random subnets of a run, as ONNX in float32 and in 8 bits, are timed in turn with
onnxruntime on one thread (processor time); the table is fitted to the probes alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from statistics import fmean

from todm_sb.export.probes import write_probes
from todm_sb.inference.onnx_latency import time_folders
from todm_sb.search.device_latency import fit
from todm_sb.search.probes import PRECISIONS, probes
from todm_sb.training.runs import load_run


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--subnets", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    space = load_run(args.run)["space"]
    rng, known = random.Random(0), probes(space)
    others = [space.random(rng) for _ in range(args.subnets)]
    print(
        "| weights | probes | fit misses them by | subnets | their times, ms | error % | largest |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "probes"
        write_probes(args.run, target, others=others)
        for precision in PRECISIONS:
            configs = [*known, *others]
            folders = [target / config.id / precision for config in configs]
            times = time_folders(folders, args.seconds, repeats=args.repeats)
            table, missed = fit(space, list(zip(known, times, strict=False)))
            theirs = times[len(known) :]
            errors = [table(c) / t - 1 for c, t in zip(others, theirs, strict=True)]
            print(
                f"| {precision} | {len(known)} | {100 * missed:.1f} % | {len(others)} "
                f"| {1e3 * min(theirs):.1f} to {1e3 * max(theirs):.1f} "
                f"| {100 * fmean(map(abs, errors)):.1f} | {100 * max(errors, key=abs):+.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
