"""Sizes of the check, its networks and its audio, and how work is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.experiments.plan.count import Counted
from todm_sb.training.brain import TODMBrain
from todm_sb.training.recipe import Recipe

RECIPE = Path(__file__).parents[2] / "recipes/LibriSpeech/todm/hparams/supernet.yaml"
RATE = 16000


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Args:
        batches: seconds of audio of a batch; the peers' step is of the first.
        utterance: seconds of one.
        labels: of one.
        changes: of supernet.yaml.
        conformer: arguments of the peers' encoder.
        vocabulary: labels.
        search: utterances and frames to decode, and how many of each SpeechBrain's beam search
            gets.
        repeats: of what is timed.
    """

    batches: tuple[float, ...]
    utterance: float
    labels: int
    conformer: dict[str, Any]
    vocabulary: int
    search: tuple[int, int, int, int]
    repeats: int
    changes: dict[str, Any] = field(default_factory=dict)


SIZES = {
    "paper": Size(
        batches=(300.0, 1200.0, 2400.0),
        utterance=12.5,
        labels=46,
        conformer={"n_layers": 12, "d_model": 512, "ffn_dim": 2048, "n_heads": 8},
        vocabulary=1024,
        search=(16, 250, 1, 60),
        repeats=3,
    ),
    "toy": Size(
        batches=(2.0, 4.0),
        utterance=1.0,
        labels=4,
        conformer={"n_layers": 2, "d_model": 16, "ffn_dim": 32, "n_heads": 2},
        vocabulary=30,
        search=(2, 12, 1, 12),
        repeats=1,
        changes={
            "n_random": 1,
            "search_space": {"n_layers": 2, "min_layers": 1, "ffn_dims": [16, 32]},
            "model": {
                "d_joint": 16,
                "encoder": {"d_model": 16, "n_heads": 2, "state_size": 2, "channels": [2, 2]},
                "predictor": {"d_model": 16},
            },
        },
    ),
}


def make_brain(folder: Path, device: str, size: Size, precision: str) -> TODMBrain:
    """The recipe's brain, ready for sandwich steps.

    Args:
        folder: of the run.
        device: to train on.
        size: of the network.
        precision: of the training.
    """
    fixed = {"data_folder": "none", "prepare": [], "named_subnets": None, "sandwich_warmup": 0}
    # A band, as nearly all steps have: who has learned nothing has no alignment to choose it by.
    fixed["pruning"] = {"coverage": 0.0}
    own = {"output_folder": str(folder), "vocab_size": size.vocabulary}
    overrides = {**fixed, **own, **size.changes}
    hparams = Recipe(RECIPE, overrides).load()
    options = {"precision": precision, "grad_accumulation_factor": 1}
    brain = TODMBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {"device": device, "max_grad_norm": float("inf"), "noprogressbar": True, **options},
        checkpointer=None,
    )
    brain.hparams.epoch_counter.current = 1
    brain.hparams.lr_annealing.set_epoch(0)
    brain.modules.train()
    brain.on_fit_start()
    return brain


def make_batch(size: Size, seconds: float) -> SpeechBatch:
    """Noise with random labels.

    Args:
        size: of an utterance.
        seconds: of all.
    """
    generator = torch.Generator().manual_seed(0)
    n_samples = int(RATE * size.utterance)
    return SpeechBatch(
        [
            {
                "id": str(i),
                "duration": size.utterance,
                "sig": 0.1 * torch.randn(n_samples, generator=generator),
                "words": ["A"],
                "tokens": torch.randint(1, size.vocabulary, (size.labels,), generator=generator),
            }
            for i in range(n_utterances(size, seconds))
        ]
    )


def n_utterances(size: Size, seconds: float) -> int:
    """Of a batch of so many seconds."""
    return max(1, int(seconds / size.utterance))


def seconds_of(work: Callable[[], object], device: str, repeats: int, warmup: int = 1) -> float:
    """The median time of some work, until the device is done.

    Args:
        work: what is timed.
        device: that it runs on.
        repeats: how often.
        warmup: times before that.
    """
    taken = []
    for _ in range(warmup + repeats):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[warmup:])


def peak_gb(work: Callable[[], object], device: str) -> float:
    """The most memory in use during some work, in GB; on the CPU of what it makes itself."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() / 1e9
    with Counted() as counted:
        work()
    return counted.peak / 1e9


@dataclass(frozen=True)
class Profile:
    """What some work asks of a device.

    Args:
        launches: kernels; on the CPU operators.
        waits: how often the host waits for the device; on the CPU numbers that are read.
        busy: seconds that kernels and copies take; 0 on the CPU.
        operators: by name, those with the most of that time, their parts' included.
    """

    launches: int
    waits: int
    busy: float = 0.0
    operators: dict[str, float] = field(default_factory=dict)


def profile_of(work: Callable[[], object], device: str, n_operators: int = 8) -> Profile:
    """Some work under the profiler, which makes the host slower, and takes seconds."""
    if device == "cpu":
        with Counted() as counted:
            work()
        waits = counted.operators["aten._local_scalar_dense"]
        return Profile(round(counted.total.launches), waits)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
    events = profile.key_averages()
    counts = {event.key: event.count for event in events}
    launches = sum(n for name, n in counts.items() if name.startswith(("cudaLaunch", "cuLaunch")))
    waits = sum(n for name, n in counts.items() if "Synchronize" in name)
    # Ranges that have a name, such as an optimizer's step, are no kernels.
    on_device = [e for e in events if e.device_type != DeviceType.CPU and "#" not in e.key]
    operators = {
        e.key: 1e-6 * e.device_time_total for e in events if e.device_type == DeviceType.CPU
    }
    most = sorted(operators, key=operators.__getitem__, reverse=True)[:n_operators]
    busy = 1e-6 * sum(e.self_device_time_total for e in on_device)
    return Profile(launches, waits, busy, {name: operators[name] for name in most})
