#!/usr/bin/env python3
"""What a training gains on a CPU from a process for each core, of one thread each, over one process
whose threads share the cores.

    cd benchmarks/training
    python processes.py ../../recipes/LibriSpeech/todm/hparams/mini_librispeech.yaml \\
        --data_folder=/path/to/LibriSpeech --sandwich_warmup=20

Each way begins a training of the recipe with the first batches of an epoch in any order, in turn,
on as much audio a step: ``max_batch_seconds`` is shared among the processes. Of the steps of max
alone and of those of the sandwich the first few are left out, as they are slower.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

from todm_sb.training.arguments import parse_arguments
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
    brief = [f"--output_folder={folder}", "--ascending_epochs=0", "--test_splits=[]"]
    brief += ["--noprogressbar", "--debug", f"--debug_batches={steps}", "--debug_epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([*command, *brief], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def speeds(log: list[dict]) -> dict[str, tuple[float, float]]:
    """Of each phase, seconds a step and seconds of audio a second.

    Raises:
        ConfigError: if there is none of which enough steps were made.
    """
    found = {}
    for phase, several in (("max alone", False), ("sandwich", True)):
        records = [record for record in log if (len(record["losses"]) > 1) is several][SETTLING:]
        if len(records) > 1:
            took = (records[-1]["time"] - records[0]["time"]) / (len(records) - 1)
            found[phase] = took, mean(record["audio"] for record in records) / took
    if not found:
        raise ConfigError(f"an epoch has {len(log)} steps: too few to be timed")
    return found


def parse() -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the overrides of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("hparams")
    parser.add_argument("--processes", type=at_least(2), default=2, help="default: 2, as cores")
    parser.add_argument("--steps", type=at_least(10), default=50, help="of each way; default: 50")
    return parser.parse_known_args()


def main() -> None:
    """Prints a table."""
    with one_line_errors():
        arguments, others = parse()
        n = arguments.processes
        recipe, _ = parse_arguments([arguments.hparams, *others])
        shared = recipe.settings()["max_batch_seconds"] / n
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        launcher += ["--module", "todm_sb.cli", "train"]
        ways = {
            f"1 process, {n} threads": (["-m", "todm_sb.cli", "train"], [], n),
            f"{n} processes": (launcher, [f"--max_batch_seconds={shared:g}"], 1),
        }
        measured = {}
        with tempfile.TemporaryDirectory() as scratch:
            for way, (program, own, threads) in ways.items():
                command = [sys.executable, *program, arguments.hparams, *others, *own]
                log = train(command, threads, Path(scratch) / str(threads), arguments.steps)
                measured[way] = speeds(log)
        rows = []
        for way, of_phase in measured.items():
            for phase, (took, speed) in of_phase.items():
                _, alone = next(iter(measured.values()))[phase]
                rows.append(
                    {
                        "training": way,
                        "steps of": phase,
                        "s a step": f"{took:.2f}",
                        "audio s a second": f"{speed:.1f}",
                        "ratio": f"{speed / alone:.2f}",
                    }
                )
        print(table_of(rows))


if __name__ == "__main__":
    main()
