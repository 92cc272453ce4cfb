"""Before a long run: whether its hardest batches fit into the memory of the accelerator.

Batches are of like lengths, but not like memory: those of the longest utterances and those with the
most labels may come hours after the first step. Here steps of such batches, at the slowest speed of
augmentation, are taken before the run begins, and undone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from sentencepiece import SentencePieceProcessor

from todm_sb.dataio.pipeline import SpeechDataset
from todm_sb.dataio.tokenizer import encode
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.distributed import all_gather
from todm_sb.utils.errors import ConfigError

logger = logging.getLogger(__name__)

# Share of the memory that tensors may take: the rest is for gaps between them, and libraries.
FULL = 0.9
# The largest batch is told to within this share.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Shape:
    """The utterances of a batch, which are alike.

    Args:
        seconds: of one, at the slowest speed.
        n_labels: of one.
    """

    seconds: float
    n_labels: int

    def n_utterances(self, max_batch_seconds: float) -> int:
        """Of a batch."""
        return max(1, int(max_batch_seconds / self.seconds + 1e-6))


class Meter(Protocol):
    """Tells how full an accelerator's memory is."""

    def used_by(self, work: Callable[[], None]) -> float:
        """The largest share of the memory that is in use during some work; infinite where it
        fails for want of memory."""


class CudaMeter:
    """That of an NVIDIA GPU; what other processes hold is not to be had.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        free, _ = torch.cuda.mem_get_info(device)
        self.available = free + torch.cuda.memory_reserved(device)

    def used_by(self, work: Callable[[], None]) -> float:
        """See :class:`Meter`."""
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            work()
        except torch.OutOfMemoryError:
            return math.inf
        finally:
            torch.cuda.empty_cache()
        return torch.cuda.max_memory_allocated(self.device) / self.available


def meter_of(device: torch.device | str) -> Meter | None:
    """That of a device; None where memory is not scanned, as on a CPU."""
    device = torch.device(device)
    return CudaMeter(device) if device.type == "cuda" else None


def hardest(seconds: Sequence[float], n_labels: Sequence[int], growth: float = 1.0) -> list[Shape]:
    """The batches of a corpus that may take the most: of its longest utterances, of those with the
    most labels, and of those with the most labels a second, of which most fit into a batch.

    Args:
        seconds: of each utterance.
        n_labels: of each.
        growth: how many times as long they become by augmentation.
    """
    both = list(zip(seconds, n_labels, strict=True))
    chosen = (
        max(both),
        max(both, key=lambda x: (x[1], x[0])),
        max(both, key=lambda x: (x[1] / x[0], x[0])),
    )
    return [Shape(growth * s, n) for s, n in dict.fromkeys(chosen)]


class TrialSteps:
    """Training steps that :meth:`undo` makes undone.

    Args:
        brain: :class:`todm_sb.training.brain.TODMBrain`, which does not train yet.
        hparams: the recipe, loaded.
    """

    def __init__(self, brain: Any, hparams: Mapping[str, Any]) -> None:
        self.brain, self.hparams = brain, hparams
        self.model = brain.modules.model
        self.parameters = list(brain.modules.parameters())
        state = self.model.state_dict()
        self.weights = {name: x.detach().cpu().clone() for name, x in state.items()}
        self.optimizer = hparams["opt_class"](self.parameters)
        space = hparams["space"]
        # All of a step's random subnets may be as large as max.
        others = [] if space.size == 1 else [space.max if hparams["n_random"] else space.min]
        self.subnets = [space.max, *others]

    def __call__(self, shape: Shape, n: int) -> None:
        """A step of a batch: its gradients on top of those of the last, and the optimizer.

        Args:
            shape: of its utterances.
            n: how many; there may be several views of each.
        """
        views = self.hparams["objective"].most_views
        n *= views
        brain, hparams, device = self.brain, self.hparams, self.brain.device
        n_samples = round(shape.seconds * hparams["sample_rate"])
        n_features = hparams["features"].n_frames(n_samples)
        features = torch.zeros(n, n_features, self.model.encoder.n_features, device=device)
        lengths = torch.full((n,), n_features, device=device)
        ids = torch.ones(n, shape.n_labels, dtype=torch.long, device=device)
        n_labels = torch.full((n,), shape.n_labels, device=device)
        labels = Labels(ids, n_labels, views)
        brain.modules.train()
        with torch.random.fork_rng(devices=[]), brain.training_ctx:
            trunk = Trunk.compute(self.model, features, lengths, ids)
            sandwich_backward(
                self.model,
                hparams["objective"],
                trunk,
                labels,
                self.subnets,
                brain._backward,
                micro_batches=hparams["micro_batches"],
            )
        # Where they are, and what the optimizer keeps, is all that matters.
        torch._foreach_zero_([p.grad for p in self.parameters if p.grad is not None])
        self.optimizer.step()

    def undo(self) -> None:
        """Gives the model the weights that it had."""
        self.model.load_state_dict(self.weights)
        for p in self.parameters:
            p.grad = None


def scan(
    step: Callable[[Shape, int], None],
    shapes: Sequence[Shape],
    max_batch_seconds: float,
    meter: Meter,
) -> float:
    """Takes a step of each shape.

    Args:
        step: takes it, of so many utterances.
        shapes: of the utterances.
        max_batch_seconds: of the recipe.
        meter: of the device.

    Returns:
        The largest ``max_batch_seconds`` that would fit, or about that: told from what batches of
        this size and of half of it take.

    Raises:
        ConfigError: if it does not fit. The message names the largest that does, which was tried.
    """

    def used(seconds: float) -> float:
        batches = [partial(step, shape, shape.n_utterances(seconds)) for shape in shapes]
        return max(map(meter.used_by, batches))

    least = max(shape.seconds for shape in shapes)
    whole = used(max_batch_seconds)
    if whole <= FULL:
        half = used(max_batch_seconds / 2)
        growth = 2 * (whole - half) / max_batch_seconds
        return max_batch_seconds + ((FULL - whole) / growth if growth > 0 else 0.0)
    if max_batch_seconds <= least or used(least) > FULL:
        raise ConfigError(
            f"one utterance of {least:.1f} s (at its slowest) is too much for this device's "
            "memory: lower --max_duration, or train a smaller network"
        )
    low, high = least, max_batch_seconds
    while high / low > 1 + TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if used(middle) <= FULL else (low, middle)
    raise ConfigError(
        f"max_batch_seconds is {max_batch_seconds:g}, which is too much for this device's memory: "
        f"the largest that fits is {int(low)}; take --max_batch_seconds={int(low)}, or more "
        "--micro_batches"
    )


def scan_memory(
    brain: Any,
    hparams: Mapping[str, Any],
    dataset: SpeechDataset,
    tokenizer: SentencePieceProcessor,
    growth: float,
) -> None:
    """Refuses a run whose batches would not fit; every process calls it.

    Where ``memory_scan`` is false, or memory cannot be told, nothing is done.

    Args:
        brain: :class:`todm_sb.training.brain.TODMBrain`, which does not train yet.
        hparams: the recipe, loaded.
        dataset: that is trained on.
        tokenizer: of the run.
        growth: how many times as long its utterances become by augmentation.

    Raises:
        ConfigError: if they do not fit on the device of one of the processes.
    """
    meter = meter_of(brain.device) if hparams.get("memory_scan", True) else None
    if meter is None:
        return
    rows = [dataset.data[name] for name in dataset.data_ids]
    n_labels = [len(encode(tokenizer, row["wrds"])) for row in rows]
    shapes = hardest([row["duration"] for row in rows], n_labels, growth)
    steps = TrialSteps(brain, hparams)
    problem, largest = None, 0.0
    try:
        largest = scan(steps, shapes, hparams["max_batch_seconds"], meter)
    except ConfigError as error:
        problem = str(error)
    finally:
        steps.undo()
    for found in all_gather(problem):
        if found is not None:
            raise ConfigError(found)
    logger.info(
        "the largest batches fit into the device's memory; max_batch_seconds up to about %d would",
        int(largest),
    )
