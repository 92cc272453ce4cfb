"""What a training run tells while it runs.

Every step becomes a line of ``steps.jsonl``. Once a minute, the means since the last time go to the
log, and with it to stdout, and to TensorBoard.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from todm_sb.optim import ScaledAdam
from todm_sb.space import SubnetConfig
from todm_sb.supernet.losses import SubnetNumbers
from todm_sb.training.averages import Averages
from todm_sb.training.guard import GradientGuard
from todm_sb.training.loss_names import NAMES, numbers_of_each
from todm_sb.utils.files import write_atomic
from todm_sb.utils.text_files import lines, read_text

logger = logging.getLogger(__name__)

# Seconds from one summary to the next.
INTERVAL = 60.0


class Watch:
    """Takes down the steps of one process.

    Args:
        folder: where ``steps.jsonl`` is. What it holds of later steps than ``step``, which a run
            that was broken off took and this one takes again, is removed.
        step: optimizer steps taken so far.
        writer: TensorBoard's SummaryWriter, or None.
        interval: seconds between summaries.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        writer: Any = None,
        interval: float = INTERVAL,
    ) -> None:
        self.path = folder / "steps.jsonl"
        records = [r for r in read_steps(self.path) if r["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(r) + "\n" for r in records))
        # A line at a time, so that none is lost when the run is killed.
        self.file = self.path.open("a", buffering=1, encoding="utf-8")
        self.writer = writer
        self.interval = interval
        self.start()

    def record(
        self, step: int, epoch: int, values: dict[str, Any], utterances: int, seconds: float
    ) -> None:
        """Takes down a step.

        Args:
            step: optimizer steps so far, this one included.
            epoch: current epoch.
            values: numbers by name, or lists for a look at single steps only. What is not finite
                becomes null, and is not in the means.
            utterances: in the batches of the step, over all processes.
            seconds: their audio.
        """
        now = time.time()
        values = {name: _finite(value) for name, value in values.items()}
        line = {
            "step": step,
            "epoch": epoch,
            "time": round(now, 3),
            **values,
            "utterances": utterances,
            "audio": seconds,
            "memory GB": memory(),
        }
        self.file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float):
                self.means.add(name, value)
        self.steps += 1
        self.utterances += utterances
        self.audio += seconds
        if time.monotonic() - self.since >= self.interval:
            self.summarise(step, epoch)

    def summarise(self, step: int, epoch: int) -> None:
        """Tells the means of the steps since the last summary, if there are any."""
        elapsed = time.monotonic() - self.since
        if not self.steps:
            return
        summary = {
            **self.means.means(),
            "steps a second": self.steps / elapsed,
            "utterances a second": self.utterances / elapsed,
            "audio hours an hour": self.audio / elapsed,
            "memory GB": memory(),
        }
        text = ", ".join(f"{name} {value:.4g}" for name, value in summary.items())
        logger.info("step %d, epoch %d: %s", step, epoch, text)
        if self.writer is not None:
            for name, value in summary.items():
                self.writer.add_scalar(f"steps/{name}", value, step)
        self.start()

    def start(self) -> None:
        """Starts a new summary here, for instance after time that was not spent on steps."""
        self.means = Averages()
        self.steps = self.utterances = 0
        self.audio = 0.0
        self.since = time.monotonic()


def values_of_subnets(
    subnets: Sequence[SubnetConfig], losses: Sequence[SubnetNumbers]
) -> dict[str, Any]:
    """What there is to tell of the subnets of a step.

    Args:
        subnets: max, min and random ones, as they were trained; or max alone.
        losses: of each.

    Returns:
        Lists with a number for each subnet that has it: the objective's terms by the names of
        :mod:`todm_sb.training.loss_names`, ``layers``, and each elastic dimension by its label,
        added up over layers. Numbers: the transducer losses of ``max`` and ``min``, and the mean
        over the ``random`` ones with their ``random layers`` and so on; means over the students of
        what only these have, such as their divergence ``kd``, and of what it has to tell besides.
    """
    values: dict[str, Any] = dict(numbers_of_each(losses))
    totals = [subnet.totals() for subnet in subnets]
    values |= {name: [total[name] for total in totals] for name in totals[0]}
    values |= dict(zip(("max", "min"), values["losses"], strict=False))
    if subnets[2:]:
        values["random"] = fmean(values["losses"][2:])
        values |= {f"random {name}": fmean(values[name][2:]) for name in totals[0]}
    for names in NAMES.values():
        if names.first is None and values[names.each]:
            values[names.others] = fmean(values[names.each])
    notes = [x.notes for x in losses if x.notes]
    values |= {name: fmean(x[name] for x in notes) for name in (notes or [{}])[0]}
    return values


def values_of_gradient(
    optimizer: torch.optim.Optimizer, guard: GradientGuard, max_grad_norm: float
) -> dict[str, float]:
    """What there is to tell of a step's gradient.

    Args:
        optimizer: that has taken the step; ScaledAdam clips gradients by a norm of its own.
        guard: that has looked at the gradient.
        max_grad_norm: by which those of other optimizers are clipped.

    Returns:
        ``gradient norm``, whether it was ``clipped``, and the steps ``left out`` so far; of a step
        that was left out, the first two are not finite.
    """
    norm, limit = guard.norm, max_grad_norm
    if not math.isfinite(norm):
        return {"gradient norm": norm, "clipped": math.nan, "left out": guard.left_out}
    if isinstance(optimizer, ScaledAdam):
        clipping = optimizer.clipping_stats()[0]
        norm, limit = clipping["grad_norm"], clipping["threshold"]
    return {"gradient norm": norm, "clipped": float(norm > limit), "left out": guard.left_out}


def read_steps(path: Path) -> list[dict[str, Any]]:
    """The records of ``steps.jsonl``; a last line that was cut short is left out."""
    if not path.exists():
        return []
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in lines(whole)]


def _finite(value: Any) -> Any:
    """The same with null, which JSON has, for numbers that are not finite, which it has not."""
    if isinstance(value, list):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def memory() -> float:
    """Largest memory so far in GB: of the GPU in use, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
