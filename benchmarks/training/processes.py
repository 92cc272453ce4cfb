#!/usr/bin/env python3
"""On a CPU, a process for each core or one process with a thread for each: which trains faster.

    cd benchmarks/training
    python processes.py ../../recipes/LibriSpeech/todm/hparams/mini_librispeech.yaml \\
        --data_folder=/path/to/LibriSpeech --sandwich_warmup=20

Each way begins a training of the recipe, in turn, with a step for each batch, in any order;
``max_batch_seconds`` is shared among the processes. Smaller batches are not filled as well, so that
an epoch has more steps: what counts is the time of an epoch, if all of its steps were such. Of
the steps of max alone and of those of the sandwich the first few are left out, as they are slower.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from todm_sb.dataio.batches import largest_growth
from todm_sb.dataio.pipeline import make_loader_kwargs
from todm_sb.dataio.split import read_splits
from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.settings import load_checked
from todm_sb.utils.arguments import at_least
from todm_sb.utils.errors import ConfigError, one_line_errors
from todm_sb.utils.tables import table_of

# Steps of a phase that are left out.
SETTLING = 5


def train(command: list[str], threads: int, folder: Path, steps: int) -> list[dict]:
    """The log of the first steps of a training, one record a step.

    Raises:
        ConfigError: if it failed.
    """
    brief = ["--noprogressbar", "--debug", f"--debug_batches={steps}", "--debug_epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([*command, *brief], env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise ConfigError((told or lines)[-1])
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def steps_of_epoch(arguments: list[str], processes: int) -> int:
    """Of the recipe that these arguments are of, whose data are prepared."""
    hparams = load_checked(*parse_arguments(arguments))
    data = read_splits(hparams, tokenizer_of(hparams)).train
    growth = largest_growth(hparams.get("wav_augment"))
    kwargs = make_loader_kwargs(data, hparams["max_batch_seconds"], hparams["seed"], growth=growth)
    return math.ceil(len(kwargs["batch_sampler"]) / processes)


def seconds_a_step(log: list[dict]) -> dict[str, float]:
    """Of each phase of which there are enough steps.

    Raises:
        ConfigError: if there is none.
    """
    found = {}
    for phase, several in (("max alone", False), ("sandwich", True)):
        records = [record for record in log if (len(record["losses"]) > 1) is several][SETTLING:]
        if len(records) > SETTLING:
            found[phase] = (records[-1]["time"] - records[0]["time"]) / (len(records) - 1)
    if not found:
        raise ConfigError(f"{len(log)} steps are too few to be timed: give more --steps, or data")
    return found


def main() -> None:
    """Prints a table."""
    with one_line_errors():
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
        parser.add_argument("hparams")
        parser.add_argument("--processes", type=at_least(2), default=2, help="default: 2, as cores")
        parser.add_argument("--steps", type=at_least(10), default=50, help="of each; default: 50")
        arguments, others = parser.parse_known_args()
        n = arguments.processes
        recipe, _ = parse_arguments([arguments.hparams, *others])
        shared = recipe.settings()["max_batch_seconds"] / n
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        launcher += ["--module", "todm_sb.cli", "train"]
        ways = {
            f"1 process, {n} threads": (["-m", "todm_sb.cli", "train"], [], 1),
            f"{n} processes": (launcher, [f"--max_batch_seconds={shared:g}"], n),
        }
        rows = []
        alone: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for way, (program, own, processes) in ways.items():
                folder = Path(scratch) / str(processes)
                brief = [f"--output_folder={folder}", "--ascending_epochs=0", "--test_splits=[]"]
                brief += ["--grad_accumulation_factor=1", "--device=cpu"]
                training = [arguments.hparams, *others, *own, *brief]
                command = [sys.executable, *program, *training]
                log = train(command, n // processes, folder, arguments.steps)
                steps = steps_of_epoch(training, processes)
                for phase, took in seconds_a_step(log).items():
                    epoch = steps * took / 60
                    row = {
                        "training": way,
                        "steps of": phase,
                        "s a step": f"{took:.2f}",
                        "steps an epoch": f"{steps}",
                        "minutes an epoch": f"{epoch:.2f}",
                        "ratio": f"{epoch / alone.setdefault(phase, epoch):.2f}",
                    }
                    rows.append(row)
        print(table_of(rows))


if __name__ == "__main__":
    main()
