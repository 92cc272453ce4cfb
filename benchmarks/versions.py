"""Two versions of the code at the same work, in turn: this one, and another checkout of it.

    git worktree add ../before 909ff9d
    python benchmarks/versions.py ../before [--works sandwich mini ...] [--repeats 5]

Each version runs in a process of its own, on one thread, with the inputs of its own benchmarks of
the same seed; they take turns. Seconds are of processor time.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measure import Row, print_table, time_in_turn

# A twentieth is what the same version differs from itself by, on a machine with other work.
TARGET = 1.05
Work = Callable[[], object]


def sandwich() -> Work:
    """A step at paper size; see ``sandwich.py``."""
    from sandwich import prepare

    return prepare("sandwich")


def mini() -> Work:
    """Training steps of the mini recipe, optimizer, features and augmentation included."""
    from watching import make_batch, make_brain

    brain = make_brain(tempfile.mkdtemp())
    batches = itertools.cycle([make_batch(brain.hparams.vocab_size) for _ in range(4)])

    def step() -> None:
        brain.step += 1
        brain.fit_batch(next(batches))

    return step


def full_loss() -> Work:
    """See ``loss.py``."""
    from loss import prepare

    return prepare("full")


def pruned_loss() -> Work:
    """See ``loss.py``."""
    from loss import prepare

    return prepare("pruned")


def optimizer() -> Work:
    """A step; see ``scaled_adam.py``."""
    from scaled_adam import ScaledAdam, make_params

    return ScaledAdam(make_params()).step


def encoder() -> Work:
    """10 s of audio; see ``encoder.py``."""
    from encoder import CHANNELS, N_MELS, D, MHSSMEncoder

    network = MHSSMEncoder(N_MELS, D, [3072] * 12, channels=CHANNELS).eval()
    features = torch.randn(1, 1000, N_MELS), torch.tensor([1000])
    return torch.inference_mode()(lambda: network(*features))


def greedy() -> Work:
    """Fitted networks; see ``greedy.py``."""
    return _search(1)


def beam() -> Work:
    """Beam 4; see ``beam.py``."""
    return _search(4)


def _search(beam_size: int) -> Work:
    from synthetic_transducer import TransducerBeamSearcher, fitted_transducer

    networks, encoded = fitted_transducer(16, 250)
    searcher = TransducerBeamSearcher(**networks, beam_size=beam_size)
    return torch.no_grad()(lambda: searcher(encoded))


WORKS = {
    work.__name__: work
    for work in (sandwich, mini, full_loss, pruned_loss, optimizer, encoder, greedy, beam)
}


class Version:
    """A process that does the work of one checkout whenever it is called."""

    def __init__(self, checkout: Path, work: str) -> None:
        self.seconds = 0.0
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(checkout), "--serve", work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> None:
        """Once more; its processor time is added to ``seconds``."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"ended early: {self.process.args}")
        self.seconds += float(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def serve(checkout: Path, work: str) -> None:
    """Does the work once for each line of stdin, and answers with its seconds."""
    sys.path[:0] = [str(checkout), str(checkout / "benchmarks")]
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = WORKS[work]()
    for _ in sys.stdin:
        start = time.thread_time()
        run()
        print(time.thread_time() - start, file=answers, flush=True)


def compare(work: str, checkouts: list[Path], repeats: int) -> Row:
    """Times the work in both."""
    versions = [Version(checkout, work) for checkout in checkouts]
    try:
        ours, peer = time_in_turn(
            *versions,
            repeats=repeats,
            warmup=1,
            clock=lambda: sum(version.seconds for version in versions),
        )
    finally:
        for version in versions:
            version.close()
    return Row(
        f"{work}, peer the other version", "", 1e3 * ours.median, 1e3 * peer.median, "ms", TARGET
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="the other version")
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=WORKS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", choices=WORKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.checkout.resolve(), args.serve)
        return
    torch.set_num_threads(1)
    checkouts = [Path(__file__).parents[1], args.checkout]
    print_table([compare(work, checkouts, args.repeats) for work in args.works])


if __name__ == "__main__":
    main()
