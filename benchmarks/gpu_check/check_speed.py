"""Training steps of the recipe at size, and what the plan says of them."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from check_runner import Context, Row, machine
from check_sizes import (
    SIZES,
    Size,
    make_batch,
    make_brain,
    n_utterances,
    peak_gb,
    profile_of,
    seconds_of,
)

from todm_sb.experiments.plan.cards import CARDS
from todm_sb.experiments.plan.plan import LAUNCH_SECONDS
from todm_sb.experiments.plan.step import Utterance, count_optimizer, count_step, subnets_of
from todm_sb.nnet.sizes import n_parameters
from todm_sb.training.brain import TODMBrain

PRECISIONS = ("bf16", "fp32")


def speed(context: Context) -> Iterator[Row]:
    """Time, throughput and memory of steps; where the time of one goes."""
    size = SIZES[context.size]
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            brain = make_brain(Path(folder), context.device, size, precision)
            for seconds in size.batches:
                yield _row(brain, size, seconds, precision, context.device)
            for seconds in size.batches[:2]:
                yield from _profiled(brain, size, seconds, precision, context.device)
            del brain
            gc.collect()  # a brain and its loaders refer to each other


def _row(brain: TODMBrain, size: Size, seconds: float, precision: str, device: str) -> Row:
    what = f"{precision}, {seconds:g} s"
    batch = make_batch(size, seconds)
    audio = n_utterances(size, seconds) * size.utterance
    losses = []

    def step() -> None:
        brain.step += 1
        losses.append(float(brain.fit_batch(batch)))

    try:
        taken = seconds_of(step, device, size.repeats)
        peak = peak_gb(step, device)
    except torch.OutOfMemoryError:
        return _does_not_fit(brain, what)
    return {
        "what": what,
        "step, s": taken,
        "audio hours an hour": audio / taken,
        "peak, GB": peak,
        "ok": bool(torch.tensor(losses).isfinite().all()),
    }


def _does_not_fit(brain: TODMBrain, what: str) -> Row:
    brain.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return {"what": what, "note": "does not fit"}


def _profiled(
    brain: TODMBrain, size: Size, seconds: float, precision: str, device: str
) -> Iterator[Row]:
    """What of a step the device is busy with: of all of it, it waits for Python."""
    batch = make_batch(size, seconds)
    what = f"{precision}, {seconds:g} s"
    try:
        found = profile_of(lambda: brain.fit_batch(batch), device)
    except torch.OutOfMemoryError:
        yield _does_not_fit(brain, f"{what}: kernels")
        return
    counts = {"launches": found.launches, "waits": found.waits}
    yield {"what": f"{what}: all kernels", "kernels, s": found.busy, **counts}
    for name, taken in found.operators.items():
        yield {"what": f"{what}: {name}", "kernels, s": taken}


def plan(context: Context) -> Iterator[Row]:
    """What :mod:`todm_sb.experiments.plan` says of the same steps, counted without a device."""
    size = SIZES[context.size]
    with tempfile.TemporaryDirectory() as folder:
        hparams = vars(make_brain(Path(folder), "cpu", size, "fp32").hparams)
    model, name = hparams["model"], machine()["card"].lower()
    card = next((card for key, card in CARDS.items() if key in name), CARDS["h100"])
    n_trained = n_parameters(model)
    subnets = subnets_of(model, hparams["space"], hparams["n_random"])
    optimizer = count_optimizer(hparams["opt_class"], n_trained)
    utterance = Utterance(int(100 * size.utterance), size.labels)
    for precision in PRECISIONS:
        step = count_step(model.config, hparams["objective"], subnets, utterance, precision)
        launches = step.launches + sum(x.launches for x in optimizer.works.values())
        launching = LAUNCH_SECONDS * launches
        for seconds in size.batches:
            n = n_utterances(size, seconds)
            kept = 8 * n_trained + optimizer.memory
            taken = max(launching, card.seconds(step.works(n)) + card.seconds(optimizer.works))
            yield {
                "what": f"{precision}, {seconds:g} s",
                f"step, s, {card.name}": taken,
                "peak, GB": (step.memory(n) + kept) / 1e9,
                "ok": taken > 0,
            }
