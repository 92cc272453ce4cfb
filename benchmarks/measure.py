"""What every benchmark script shares: times taken in turn, peak memory, and the table.

    from measure import Row, peak_memory, print_table, time_in_turn

    ours, peer = time_in_turn(ours_step, peer_step)
    print_table([Row("a step", "B 8", 1e3 * ours.median, 1e3 * peer.median, "ms", target=0.8)])

Other programs may share the machine, so that times are only to be compared when they were taken in
turn. Linux only (peak memory is read from /proc).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

MB = 1e6


def parse_repeats(description: str, repeats: int) -> tuple[int, Callable[[], float]]:
    """The command line of a benchmark that can run by the clock or by processor time.

    Args:
        description: of the script.
        repeats: timed runs unless told otherwise.

    Returns:
        The repeats, and the clock for :func:`time_in_turn`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="on one thread, by its processor time: other work on the cores does not count",
    )
    args = parser.parse_args()
    if not args.processor_time:
        return args.repeats, time.perf_counter
    torch.set_num_threads(1)
    return args.repeats, time.thread_time


@dataclass(frozen=True)
class Times:
    """Seconds of one piece of work over its repeats."""

    median: float
    minimum: float


def time_in_turn(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int = 10,
    warmup: int = 2,
    clock: Callable[[], float] | None = None,
) -> tuple[Times, Times]:
    """Times two pieces of work in turn: ours, peer, ours, peer...

    Args:
        ours, peer: the work; it may run on a CUDA device.
        repeats: timed runs of each.
        warmup: runs of each before them.
        clock: seconds; ``time.perf_counter`` when None. ``time.thread_time`` does not count what
            other programs do on the cores, and serves work that is all on this thread.
    """
    for _ in range(warmup):
        ours()
        peer()
    clock = clock or time.perf_counter
    pairs = [(_seconds(ours, clock), _seconds(peer, clock)) for _ in range(repeats)]
    ours_s, peer_s = zip(*pairs, strict=True)
    return tuple(Times(statistics.median(s), min(s)) for s in (ours_s, peer_s))


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    _synchronize()
    start = clock()
    work()
    _synchronize()
    return clock() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(prepare: Callable[[], Callable[[], object]], start: str = "spawn") -> int:
    """Peak resident memory of a piece of work, over what was resident before it.

    It runs in a new process with as many torch threads as this one, twice: the first time loads
    libraries and starts threads, which are not the work's, and everything that it made is freed.

    Args:
        prepare: makes the inputs and returns the work. Picklable: a function of a module, or
            ``functools.partial`` of one.
        start: how the process starts; ``forkserver`` saves loading what its preload has.

    Returns:
        Bytes.

    Raises:
        concurrent.futures.process.BrokenProcessPool: if the process died, for want of memory say.
    """
    with ProcessPoolExecutor(
        1,
        multiprocessing.get_context(start),
        initializer=torch.set_num_threads,
        initargs=(torch.get_num_threads(),),
    ) as process:
        return process.submit(_peak_over_base, prepare).result()


def _peak_over_base(prepare: Callable[[], Callable[[], object]]) -> int:
    prepare()()
    gc.collect()
    work = prepare()
    # Give freed memory back, else the work would find it and not count as its user.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak, VmHWM, restarts from here
    base = _status_bytes("VmRSS")
    work()
    return _status_bytes("VmHWM") - base


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status, which counts in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


@dataclass(frozen=True)
class Row:
    """One claim of a benchmark's table.

    Args:
        claim: what is compared.
        shapes: sizes of the work.
        ours, peer: the two figures.
        unit: of both.
        target: largest ratio ours / peer that meets the claim.
    """

    claim: str
    shapes: str
    ours: float
    peer: float
    unit: str
    target: float

    @property
    def ratio(self) -> float:
        """Ours / peer: smaller is better."""
        return self.ours / self.peer

    def __str__(self) -> str:
        figures = [f"{figure:.4g} {self.unit}" for figure in (self.ours, self.peer)]
        met = "met" if self.ratio <= self.target else "missed"
        target = f"<= {self.target:.3g} ({met})"
        return f"| {' | '.join([self.claim, self.shapes, *figures, f'{self.ratio:.3f}', target])} |"


def print_table(rows: list[Row]) -> None:
    """Prints a Markdown table, and under it what it was measured with."""
    print("| claim | shapes | ours | peer | ratio | target |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(row)
    print(f"\n{torch.get_num_threads()} thread(s), torch {torch.__version__}", flush=True)
