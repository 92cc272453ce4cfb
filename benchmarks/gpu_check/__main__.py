"""Checks and measures everything on a GPU, within five minutes, and writes gpu.md.

    python benchmarks/gpu_check [--parts parity speed] [--out results/gpu_check]

Where there is no GPU it runs on the CPU, at toy size, as a test of itself. It needs no data. Given
again, it takes up what is missing or has failed; what has passed, by the same code on the same
card, it keeps.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from check_report import report
from check_runner import PARTS, ROOT, SECONDS, Context, machine, run_parts

# A CPU may be slow or shared: there only what hangs is to be broken off.
CPU_PATIENCE = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu_check")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"of all parts; default: {SECONDS:.0f}, on a CPU {CPU_PATIENCE} times as many",
    )
    parser.add_argument("--size", choices=("toy", "paper"), help="default: paper on a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    args = parser.parse_args()
    card = machine()["card"]
    if args.device == "cuda" and not card:
        parser.error("--device=cuda: there is no GPU here that nvidia-smi knows")
    device = args.device or ("cuda" if card else "cpu")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out={args.out} is no folder")
    size = args.size or ("paper" if device == "cuda" else "toy")
    context = Context(device, size, args.out.resolve())
    # To be ended as by Ctrl-C, with the part that runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    patience = CPU_PATIENCE if device == "cpu" else 1
    results = run_parts(args.parts, context, args.seconds or patience * SECONDS)
    text, passed = report(results, context)
    (context.out / "gpu.md").write_text(text, encoding="utf-8")
    print(text if passed else f"{text}\nLogs of the parts: {context.out}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
