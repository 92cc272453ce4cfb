"""What the training of a recipe takes on so many accelerators, and in what time at the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from todm_sb.dataio.batches import largest_growth
from todm_sb.experiments.plan.cards import Card
from todm_sb.experiments.plan.count import Work
from todm_sb.experiments.plan.step import (
    Count,
    Step,
    Utterance,
    count_optimizer,
    count_step,
    subnets_of,
)
from todm_sb.nnet.sizes import n_parameters
from todm_sb.supernet import count_parameters
from todm_sb.training.pace import Pace, pace_of
from todm_sb.utils.tables import table_of

# Share of a batch that is no padding, of 960 h in batches of 300 s; see benchmarks/README.md.
FILL = 0.99
# What Python and PyTorch take to launch an operator, with its share of all that the host does in a
# step: 39 to 49 us beside an H100 that waited for it (docs/scale.md).
LAUNCH_SECONDS = 45e-6
BYTES_OF_GRADIENT = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Data:
    """What is trained on; the defaults are LibriSpeech's, with 1,024 word pieces.

    Args:
        hours: of audio.
        seconds: of an utterance, on average.
        labels_per_second: of its transcript.
    """

    hours: float = 960.9
    seconds: float = 12.3
    labels_per_second: float = 3.7


@dataclass(frozen=True)
class Plan:
    """What is counted of a training, whatever it runs on.

    Args:
        parameters: of max and min, deployed.
        trained: parameters, the auxiliaries of training among them.
        copies: of them that are kept: with their mean (``average_every``) two.
        step: of a batch.
        optimizer: of a step.
        pace: batches of a step.
        utterances: of a batch, on average.
        most_utterances: at the slowest speed of augmentation, in equivalents of average ones.
        micro_batches: of the recipe.
        n_steps: of the whole training.
        n_gpus: that train together.
        gradient_bytes: of an element, as it is sent.
        precision: of the products.
    """

    parameters: tuple[int, int]
    trained: int
    copies: int
    step: Step
    optimizer: Count
    pace: Pace
    utterances: float
    most_utterances: float
    micro_batches: int
    n_steps: int
    n_gpus: int
    gradient_bytes: int
    precision: str

    @property
    def works(self) -> dict[str, Work]:
        """Of an optimizer step, on each GPU."""
        batches = self.step.works(self.utterances)
        return (Count(batches, 0) * self.pace.grad_accumulation_factor + self.optimizer).works

    @property
    def launches(self) -> float:
        """Of an optimizer step."""
        of_optimizer = sum(x.launches for x in self.optimizer.works.values())
        return self.step.launches * self.pace.grad_accumulation_factor + of_optimizer

    @property
    def memory(self) -> dict[str, float]:
        """Bytes on each GPU by what they are for."""
        weights = 4.0 * self.trained
        sent = weights if self.n_gpus == 1 else weights + self.gradient_bytes * self.trained
        activations = self.step.memory(self.most_utterances, self.micro_batches)
        return {
            "weights": self.copies * weights,
            "gradients": sent,
            "optimizer": self.optimizer.memory,
            "activations": activations,
        }

    @property
    def sent(self) -> float:
        """Bytes that each GPU sends in a step: a ring's share of the gradients, twice (Patarasuk &
        Yuan 2009)."""
        return 2 * (self.n_gpus - 1) / self.n_gpus * self.gradient_bytes * self.trained

    def seconds(self, card: Card) -> dict[str, float]:
        """Of an optimizer step, by what it is spent on, the least by the card's data sheet, and
        ``launching`` as measured on one machine; ``step`` is all of it.

        Operators run on the device one after another while Python launches the next, and the slower
        of the two tells how long that takes; then gradients are sent.
        """
        works, total = self.works, sum(self.works.values(), Work())
        computing = sum(card.computing(kind, work) for kind, work in works.items())
        sending = self.sent / card.link
        launching = LAUNCH_SECONDS * self.launches
        return {
            "launching": launching,
            "computing": computing,
            "moving": card.moving(total),
            "sending": sending,
            "step": max(launching, card.seconds(works)) + sending,
        }


def plan_of(hparams: Mapping[str, Any], precision: str, n_gpus: int, data: Data) -> Plan:
    """Counts the training of a recipe.

    Args:
        hparams: the recipe, loaded.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        n_gpus: that train together.
        data: that it trains on.

    Raises:
        ConfigError: if no number of batches makes a step.
    """
    model, space, rate = hparams["model"], hparams["space"], hparams["sample_rate"]
    n_features = hparams["features"].n_frames(round(data.seconds * rate))
    utterance = Utterance(n_features, max(1, round(data.labels_per_second * data.seconds)))
    subnets = subnets_of(model, space, hparams["n_random"])
    step = count_step(model.config, hparams["objective"], subnets, utterance, precision)
    trained = n_parameters(model)
    audio = audio_of_batch(hparams)
    pace = pace_of(hparams, hparams.get("grad_accumulation_factor", 1), n_gpus)
    n_steps = steps_of_epoch(3600 * data.hours, audio, pace, n_gpus)
    return Plan(
        (count_parameters(model, space.max), count_parameters(model, space.min)),
        trained,
        2 if hparams.get("average_every") else 1,
        step,
        count_optimizer(hparams["opt_class"], trained),
        pace,
        max(1.0, audio / data.seconds),
        max(1.0, hparams["max_batch_seconds"] / data.seconds),
        hparams["micro_batches"],
        n_steps * hparams["number_of_epochs"],
        n_gpus,
        BYTES_OF_GRADIENT[hparams.get("gradient_sums", "fp32")],
        precision,
    )


def audio_of_batch(hparams: Mapping[str, Any]) -> float:
    """Seconds of audio of a batch, without padding and as they were before augmentation.

    Args:
        hparams: the recipe, loaded: ``max_batch_seconds`` and ``wav_augment``.
    """
    return FILL * hparams["max_batch_seconds"] / largest_growth(hparams.get("wav_augment"))


def steps_of_epoch(seconds: float, audio: float, pace: Pace, n_gpus: int) -> int:
    """Steps of the optimizer in a pass over the data.

    Args:
        seconds: of all audio.
        audio: of a batch, in seconds.
        pace: of the training.
        n_gpus: that the batches are dealt out to.
    """
    n_batches = math.ceil(math.ceil(seconds / audio) / n_gpus)
    return math.ceil(n_batches / pace.grad_accumulation_factor)


def counted_table(plan: Plan, data: Data) -> str:
    """What does not depend on the card.

    Args:
        plan: of a training.
        data: that it is of.
    """
    most, least = (f"{n / 1e6:.1f} M" for n in plan.parameters)
    total = sum(plan.works.values(), Work())
    memory = {f"memory, {name}": f"{x / 1e9:.2f} GB" for name, x in plan.memory.items()}
    rows = {
        "parameters of max, min": f"{most}, {least}",
        "precision": plan.precision,
        "audio of a pass (--hours)": f"{data.hours:g} h",
        "optimizer steps": f"{plan.n_steps:,}",
        "batches of a step, on each GPU": f"{plan.pace.grad_accumulation_factor}",
        "computed in a step, on each GPU": f"{total.flops / 1e12:.2f} TFLOP",
        "read and written in a step": f"{total.n_bytes / 1e9:.0f} GB",
        "operators launched in a step": f"{plan.launches:,.0f}",
        "sent in a step": f"{plan.sent / 1e9:.2f} GB",
        **memory,
        "memory, all": f"{sum(plan.memory.values()) / 1e9:.2f} GB",
    }
    return table_of([{"counted": name, "": figure} for name, figure in rows.items()])


def cards_table(plan: Plan, cards: list[Card]) -> str:
    """A row a card: where a step's time goes at the card's limits, and the hours of all steps."""
    rows = []
    for card in cards:
        seconds = plan.seconds(card)
        parts = {f"{name}, ms": f"{1e3 * x:.1f}" for name, x in seconds.items()}
        share = sum(plan.memory.values()) / card.memory
        hours = f"{plan.n_steps * seconds['step'] / 3600:,.1f}"
        rows.append(
            {
                "card": f"{plan.n_gpus} x {card.name}",
                **parts,
                "memory": f"{100 * share:.0f} %" + (" (too much)" if share > 1 else ""),
                "hours": hours,
            }
        )
    return table_of(rows)
