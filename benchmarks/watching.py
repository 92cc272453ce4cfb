"""What watching and checking costs of a training step of the mini recipe, losses and gradients
looked at, steps.jsonl written, every file's samples checked, on one thread by its processor time.

    python benchmarks/watching.py [--steps 20]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import soundfile
import torch
from measure import Row, print_table, time_in_turn

from todm_sb.dataio.audio import read_samples
from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.brain import TODMBrain
from todm_sb.training.guard import GradientGuard
from todm_sb.training.loss_names import means_of_step
from todm_sb.training.settings import load_checked
from todm_sb.training.watch import Watch, values_of_gradient, values_of_subnets

RECIPE = Path(__file__).parents[1] / "recipes/LibriSpeech/todm/hparams/mini.yaml"
B, SECONDS, U, RATE = 8, 3.75, 12, 16000


# What watching is: taking losses and gradients apart, looking at them, writing them down.
WATCHING = (values_of_subnets, values_of_gradient, means_of_step)
METHODS = ((Watch, "record"), (GradientGuard, "passes"))


class Stopwatch:
    """Adds up the processor time of what it is put around."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.timed: set[str] = set()

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.timed.add(work.__name__)
            start = time.thread_time()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds += time.thread_time() - start

        return timed


@contextmanager
def time_watching(watch: Stopwatch) -> Iterator[None]:
    """Puts the stopwatch around all of watching, in whichever module it is called."""
    with ExitStack() as patches:
        for owner, name in METHODS:
            patches.enter_context(patch.object(owner, name, watch.around(getattr(owner, name))))
        modules = [module for name, module in sys.modules.items() if name.startswith("todm_sb.")]
        for work in WATCHING:
            for module in modules:
                if vars(module).get(work.__name__) is work:
                    patches.enter_context(patch.object(module, work.__name__, watch.around(work)))
        yield
    not_called = {work.__name__ for work in WATCHING} | {name for _, name in METHODS}
    not_called -= watch.timed
    assert not not_called, f"a step does without {not_called}"


def make_brain(folder: str, precision: str = "fp32") -> TODMBrain:
    """The recipe's brain, ready for a step of the second epoch."""
    recipe, run_opts = parse_arguments(
        [
            str(RECIPE),
            f"--output_folder={folder}",
            "--sandwich_warmup=0",
            "--device=cpu",
            f"--precision={precision}",
        ]
    )
    hparams = load_checked(recipe, run_opts)
    Path(folder).mkdir(parents=True, exist_ok=True)
    brain = TODMBrain(
        hparams["modules"], hparams["opt_class"], hparams, run_opts, checkpointer=None
    )
    brain.hparams.epoch_counter.current = 2
    brain.on_fit_start()
    brain.modules.train()
    return brain


def make_batch(vocab_size: int) -> SpeechBatch:
    """Noise with random labels."""
    n = int(RATE * SECONDS)
    return SpeechBatch(
        [
            {
                "id": str(i),
                "duration": SECONDS,
                "sig": 0.1 * torch.randn(n),
                "words": ["A"],
                "tokens": torch.randint(1, vocab_size, (U,)),
            }
            for i in range(B)
        ]
    )


def seconds_of_audio_checks(folder: str) -> float:
    """How much longer the samples of a batch take with their checks than without."""
    path = f"{folder}/noise.flac"
    soundfile.write(path, 0.1 * torch.randn(int(RATE * SECONDS)).numpy(), RATE)
    checked, plain = time_in_turn(
        lambda: [read_samples(path, SECONDS, RATE) for _ in range(B)],
        lambda: [soundfile.read(path, dtype="float32") for _ in range(B)],
        repeats=50,
        clock=time.thread_time,
    )
    return checked.median - plain.median


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        brain = make_brain(folder)
        extra, step = Stopwatch(), Stopwatch()
        batches = [make_batch(brain.hparams.vocab_size) for _ in range(4)]
        with time_watching(extra):
            fit_batch = step.around(brain.fit_batch)
            for brain.step in range(1, steps + 3):
                if brain.step == 3:  # two to warm up
                    extra.seconds = step.seconds = 0.0
                fit_batch(batches[brain.step % len(batches)])
        per_step = [1e3 * x.seconds / steps for x in (extra, step)]
        audio = 1e3 * seconds_of_audio_checks(folder)
    shapes = f"mini.yaml, B {B}, {SECONDS} s, U {U}"
    claim = "watching and checks of a step, peer the step: processor time"
    print_table([Row(claim, shapes, per_step[0] + audio, per_step[1] + audio, "ms", 0.02)])
    print(f"of it, checks of the audio that was read: {audio:.2f} ms")


if __name__ == "__main__":
    main()
