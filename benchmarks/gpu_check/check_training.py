"""The recipe, tiny, from audio made here to its test: in each precision, resumed, by torchrun."""

from __future__ import annotations

import json
import math
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import check_worker
import numpy as np
import soundfile
import torch
from check_runner import STARTS, Context, Row
from check_sizes import RATE, RECIPE
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from todm_sb.training import train
from todm_sb.training.brain import TODMBrain
from todm_sb.utils.errors import ConfigError

WORDS = ("ABBA", "BEAD", "CAB", "DECAF", "EBB", "FACADE", "FADED", "GAGE")
UTTERANCES = {"train": 12, "dev": 2, "test": 2}
TONE = int(0.1 * RATE)
# Before this batch training is broken off.
BREAK = 7
# Weights after a training that was broken off, against one that was not, relative. On a GPU sums
# are not always made in the same order.
SAME = {"cpu": 0.0, "cuda": 1e-2}

OVERRIDES = {
    "train_splits": "[train]",
    "dev_splits": "[dev]",
    "test_splits": "[test]",
    "vocab_size": 12,
    "number_of_epochs": 2,
    "max_batch_seconds": 8.0,
    "reference_batch_seconds": 8.0,
    "avg_checkpoints": 1,
    "sandwich_warmup": 2,
    "augment_after": 2,
    "n_random": 1,
    "num_workers": 0,
    "named_subnets": "null",
    "search_space": "{n_layers: 2, min_layers: 1, ffn_dims: [16, 32], layer_drop: any}",
    "model": json.dumps(
        {
            "d_joint": 16,
            "encoder": {"d_model": 16, "n_heads": 4, "channels": [4, 4]},
            "predictor": {"d_model": 16},
        }
    ),
}


class BrokenOffError(Exception):
    """Training was."""


def write_corpus(folder: Path) -> None:
    """Sequences of tones, one a letter, in LibriSpeech's layout."""
    rng = random.Random(0)
    time = np.arange(TONE) / RATE
    for number, (split, n) in enumerate(UTTERANCES.items(), 1):
        chapter = folder / split / str(number) / "1"
        chapter.mkdir(parents=True)
        lines = []
        for i in range(n):
            text, name = " ".join(rng.choices(WORDS, k=rng.randint(2, 4))), f"{number}-1-{i:04d}"
            pitches = [0 if c == " " else 300 + 200 * (ord(c) - ord("A")) for c in text]
            tones = [0.3 * np.sin(2 * math.pi * pitch * time) for pitch in pitches]
            noise = np.random.default_rng(i).normal(0, 1e-3, TONE * len(pitches))
            soundfile.write(chapter / f"{name}.flac", np.concatenate(tones) + noise, RATE)
            lines.append(f"{name} {text}\n")
        (chapter / f"{number}-1.trans.txt").write_text("".join(lines))


def arguments(corpus: Path, output: Path, device: str, **changes: object) -> list[str]:
    """The command line of a run."""
    options = {**OVERRIDES, "data_folder": corpus, "output_folder": output, **changes}
    given = [f"--{key}={value}" for key, value in options.items()]
    return [str(RECIPE), *given, "--noprogressbar", f"--device={device}"]


def run(command: list[str]) -> tuple[float, float]:
    """A training; returns the loss of max in its first epoch and in its last."""
    train.main(command)
    (output,) = (x.partition("=")[2] for x in command if x.startswith("--output_folder="))
    epochs = (Path(output) / "history.jsonl").read_text().splitlines()
    assert (Path(output) / "results_test.json").is_file()
    first, last = (json.loads(epochs[i])["train"]["max"] for i in (0, -1))
    return first, last


def training(context: Context) -> Iterator[Row]:
    """In float32 whole, and broken off and resumed; in bfloat16 and float16."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus, folder, device = Path(scratch, "corpus"), Path(scratch), context.device
        write_corpus(corpus)
        first, whole = run(arguments(corpus, folder / "fp32", device, precision="fp32"))
        yield {"what": "fp32", "loss at first": first, "at last": whole, "ok": whole < first}

        broken = arguments(corpus, folder / "broken", device, precision="fp32")
        difference = _resumed([*broken, "--ckpt_interval_steps=1"], folder)
        yield {
            "what": "broken off and resumed: weights differ by",
            "at last": difference,
            "ok": difference <= SAME[device],
        }
        for precision in ("bf16", "fp16"):
            command = arguments(corpus, folder / precision, device, precision=precision)
            if precision == "fp16" and device == "cpu":
                yield {"what": "fp16, which a CPU does not have", "ok": _is_refused(command)}
                continue
            first, last = run(command)
            near = last < first and abs(last / whole - 1) < 0.2
            yield {"what": precision, "loss at first": first, "at last": last, "ok": near}


def _resumed(command: list[str], folder: Path) -> float:
    """How far the weights of a training that was broken off are from those of one that was not."""
    fit_batch, batches = TODMBrain.fit_batch, iter(range(1, 10**6))

    def breaks(self: TODMBrain, batch: object) -> torch.Tensor:
        if next(batches) == BREAK:
            raise BrokenOffError
        return fit_batch(self, batch)

    with mock.patch.object(TODMBrain, "fit_batch", breaks):
        try:
            train.main(command)
        except BrokenOffError:
            pass
        else:
            raise AssertionError("nothing was broken off")
    run(command)
    whole, resumed = (_weights(folder / name) for name in ("fp32", "broken"))
    off = sum(float((whole[k] - resumed[k]).square().sum()) for k in whole)
    return (off / sum(float(x.square().sum()) for x in whole.values())) ** 0.5


def _weights(output: Path) -> dict[str, torch.Tensor]:
    newest = max(output.glob("save/CKPT*"), key=lambda path: path.stat().st_mtime)
    state = torch.load(newest / "model.ckpt", map_location="cpu")
    return {name: x.double() for name, x in state.items() if x.is_floating_point()}


def _is_refused(command: list[str]) -> bool:
    try:
        train.main(command)
    except ConfigError as error:
        return "needs a GPU" in str(error)
    return False


def processes(context: Context) -> Iterator[Row]:
    """A process for each GPU, two on the CPU: the recipe, and what they send each other."""
    n = torch.cuda.device_count() if context.device == "cuda" else 2
    with tempfile.TemporaryDirectory() as scratch:
        corpus, found = Path(scratch, "corpus"), Path(scratch, "found.json")
        write_corpus(corpus)
        command = arguments(corpus, Path(scratch, "run"), context.device, number_of_epochs=1)
        what, failed = f"the recipe by {n} process(es)", ""
        try:
            _torchrun(n, STARTS[context.device])(command, found, context.size)
        except ChildFailedError as error:
            failed = str(error.get_first_failure()[1].message)
        done = (Path(scratch, "run") / "results_test.json").is_file()
        yield {"what": what, "ok": done and not failed, **({"note": failed} if failed else {})}
        yield from json.loads(found.read_text())


def _torchrun(n: int, start: str) -> Callable[..., Any]:
    """What ``torchrun --standalone --nproc_per_node=n`` does, of a function."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(uuid.uuid4()),
        max_restarts=0,
        start_method=start,
    )
    return elastic_launch(config, check_worker.main)
