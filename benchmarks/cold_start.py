"""What the first text costs in a process that begins: a bundle with PyTorch, its subnet as ONNX.

    python benchmarks/cold_start.py BUNDLE ONNXFOLDER speech.wav [more.wav ...]

``todm-sb transcribe`` of one file, each time in a new process, the two in turn: seconds by the
clock (the least, since other work on the cores adds to it), of processor time (the median), and the
peak of the resident memory, libraries and all. The texts have to be the same. With more files, once
more with all of them: what a second of their audio adds to the processor time is the real-time
factor. ``--light`` names the Python of an environment with nothing but the folder's
requirements.txt.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile
from measure import MB, Row, print_table

# The process looks at itself when it is done: what its parent sees of its memory is at least
# what the parent had when it started it.
TRANSCRIBE = """
import sys, time
from todm_sb.cli import main
if code := main():
    sys.exit(code)
print(time.process_time())
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM:")), end="")
"""

# What a device allows.
SECONDS, MEGABYTES = 1.0, 150.0


@dataclass(frozen=True)
class Start:
    """One process: clock seconds, processor seconds, peak bytes, and what it printed."""

    seconds: float
    processor: float
    peak: int
    text: str


def start(python: Path, model: Path, audio: Sequence[Path]) -> Start:
    """Runs ``todm-sb transcribe`` once."""
    command = [str(python), "-c", TRANSCRIBE, "transcribe", "--model", str(model), *map(str, audio)]
    path = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} ... failed")
    text, processor, peak = done.stdout.rstrip("\n").rsplit("\n", 2)
    return Start(seconds, float(processor), 1024 * int(peak.split()[1]), text)


def in_turn(args: argparse.Namespace, audio: Sequence[Path]) -> tuple[list[Start], list[Start]]:
    """ONNX and PyTorch, so often; the texts are checked."""
    ours, peer = [], []
    for _ in range(args.repeats):
        ours.append(start(args.light, args.onnx, audio))
        peer.append(start(Path(sys.executable), args.bundle, audio))
    if len(texts := {s.text for s in ours + peer}) > 1:
        raise SystemExit(f"the texts differ: {texts}")
    return ours, peer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--light", type=Path, default=Path(sys.executable))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    first, *more = args.audio
    ours, peer = in_turn(args, [first])
    print(f"{ours[0].text.strip()}\n")
    shapes = f"{args.repeats} processes each"
    clock = [min(s.seconds for s in x) for x in (ours, peer)]
    processor = [statistics.median(s.processor for s in x) for x in (ours, peer)]
    peak = [max(s.peak for s in x) / MB for x in (ours, peer)]
    rows = [
        Row("first text, by the clock", shapes, *clock, "s", SECONDS / clock[1]),
        Row("first text, processor time", shapes, *processor, "s", SECONDS / processor[1]),
        Row("peak memory, libraries and all", shapes, *peak, "MB", MEGABYTES / peak[1]),
    ]
    if more:
        seconds = sum(soundfile.info(path).duration for path in more)
        both = [statistics.median(s.processor for s in x) for x in in_turn(args, args.audio)]
        factors = [(a - b) / seconds for a, b in zip(both, processor, strict=True)]
        rows.append(Row("real-time factor", f"{seconds:.0f} s more", *factors, "s/s", 1.0))
    print_table(rows)


if __name__ == "__main__":
    main()
