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
    launches_and_waits,
    make_batch,
    make_brain,
    n_utterances,
    peak_gb,
    seconds_of,
)

from todm_sb.experiments.plan.cards import CARDS
from todm_sb.experiments.plan.step import Utterance, count_optimizer, count_step, subnets_of
from todm_sb.nnet.sizes import n_parameters
from todm_sb.training.brain import TODMBrain

PRECISIONS = ("bf16", "fp32")


def speed(context: Context) -> Iterator[Row]:
    """Time, throughput, memory, launches and waits of steps."""
    size = SIZES[context.size]
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            brain = make_brain(Path(folder), context.device, size, precision)
            for seconds in size.batches:
                yield _row(brain, size, seconds, precision, context.device)
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
        launches, waits = launches_and_waits(step, device)
    except torch.OutOfMemoryError:
        brain.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return {"what": what, "note": "does not fit"}
    return {
        "what": what,
        "step, s": taken,
        "audio hours an hour": audio / taken,
        "peak, GB": peak,
        "launches": launches,
        "waits": waits,
        "ok": bool(torch.tensor(losses).isfinite().all()),
    }


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
        for seconds in size.batches:
            n = n_utterances(size, seconds)
            kept = 8 * n_trained + optimizer.memory
            taken = card.seconds(step.works(n)) + card.seconds(optimizer.works)
            yield {
                "what": f"{precision}, {seconds:g} s",
                f"step, s, at least, {card.name}": taken,
                "peak, GB": (step.memory(n) + kept) / 1e9,
                "ok": taken > 0,
            }
