"""Training of SpeechBrain's Conformer transducer as its LibriSpeech recipe trains it, on the data,
the batches and the augmentation of a recipe of ours, for so many processor seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from peer_network import ConformerTransducer
from speechbrain.nnet.schedulers import NoamScheduler
from torch import Tensor

from todm_sb.dataio.batches import largest_growth
from todm_sb.dataio.pipeline import SpeechBatch, SpeechDataset, make_loader_kwargs
from todm_sb.dataio.text import words_of_ids
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.schedule import at
from todm_sb.training.averages import Averages
from todm_sb.training.checkpoints import SafeCheckpointer, keep, recover_average
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.pace import pace_of
from todm_sb.training.seeding import seed_step
from todm_sb.training.shared_part import SharedPart
from todm_sb.training.stopwatch import Stopwatch
from todm_sb.utils.errors import DataError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.progress import watched

NAME = "conformer"
# Of SpeechBrain's recipe: its optimizer, and for what share of the training CTC is in the loss.
ADAMW = {"betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01}
MAX_GRAD_NORM = 5.0
CTC_WEIGHT, CTC_SHARE = 0.3, 0.6
# How a training starts: with SpeechBrain's weights of the losses, or with those of our recipe.
STARTS = ("speechbrain", "ours")
# Epochs do not end it, time does.
ENDLESS = 10**6


class PeerBrain(sb.Brain):
    """Trains a :class:`ConformerTransducer`.

    Args:
        network: to train.
        recipe: hparams of ours, loaded; its network is not used.
        folder: of the training; it goes on from what is there.
        start: of :data:`STARTS`.
        rate: highest learning rate.
        warmup_steps: up to it.
        seconds: processor seconds of training, without validation.
        tokenizer: of the recipe.
        device: to train on.
        precision: of products; None for the recipe's.
        share: of ``seconds``, after which it stops for now; schedules are of all of them.
    """

    def __init__(
        self,
        network: ConformerTransducer,
        recipe: Mapping[str, Any],
        folder: Path,
        start: str,
        rate: float,
        warmup_steps: int,
        seconds: float,
        tokenizer: Any,
        device: str = "cpu",
        precision: str | None = None,
        share: float = 1.0,
    ) -> None:
        self.scheduler = NoamScheduler(rate, warmup_steps)
        self.stopwatch = Stopwatch()
        self.recipe, self.folder, self.start = recipe, folder, start
        self.seconds, self.until = seconds, share * seconds
        self.tokenizer, self.searcher = tokenizer, network.searcher()
        self.counter = recipe["epoch_counter"]
        self.counter.limit = ENDLESS
        checkpointer = SafeCheckpointer(
            folder / "save",
            recoverables={
                "model": network,
                "normalize": recipe["normalize"],
                "scheduler": self.scheduler,
                "epoch_counter": self.counter,
            },
        )
        self.losses = Averages()
        keep(checkpointer, stopwatch=self.stopwatch, losses=self.losses)
        super().__init__(
            {"features": recipe["features"], "normalize": recipe["normalize"], "model": network},
            partial(torch.optim.AdamW, lr=rate, **ADAMW),
            run_opts={
                "device": device,
                "precision": precision or recipe["precision"],
                "max_grad_norm": MAX_GRAD_NORM,
                "ckpt_interval_minutes": 10,
                "noprogressbar": not watched(),
            },
            checkpointer=checkpointer,
        )
        self.batches_a_step = pace_of(recipe, 1, 1).reference_batches
        one_view = {**recipe, "objective": Objective()}
        self.inputs = SharedPart.of(recipe["features"], network, one_view).inputs
        self.errors = ErrorRates([NAME])

    # Training

    @property
    def spent(self) -> float:
        """Processor seconds of training so far."""
        return self.stopwatch.seconds().get("train", {}).get("processor", 0.0)

    @property
    def _optimizer_step_limit_exceeded(self) -> bool:
        return self.spent >= self.until

    def train(self, train: SpeechDataset, valid: SpeechDataset) -> None:
        """Trains, from the folder's newest checkpoint, until its share of the time is spent."""
        self.checkpointer.recover_if_possible()
        if self.spent < self.until:
            growth = largest_growth(self.recipe["wav_augment"])
            self.fit(
                self.counter,
                train,
                valid,
                train_loader_kwargs=self._loader(train, True, growth),
                valid_loader_kwargs=self._loader(valid, False),
            )

    def _loader(self, data: SpeechDataset, shuffle: bool, growth: float = 1.0) -> dict[str, Any]:
        seconds, seed = self.recipe["max_batch_seconds"], self.recipe["seed"]
        ascending = self.recipe.get("ascending_epochs", 0)
        return make_loader_kwargs(data, seconds, seed, shuffle, growth, ascending)

    def make_dataloader(self, dataset: Any, stage: sb.Stage, **kwargs: Any) -> Any:
        """As SpeechBrain's; a batch sampler of training shuffles anew in each epoch."""
        if stage == sb.Stage.TRAIN:
            self.train_sampler = kwargs["batch_sampler"]
        else:
            self.undecodable = dataset.undecodable
        return super().make_dataloader(dataset, stage, **kwargs)

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict) -> dict:
        return loader_kwargs  # the batch sampler does not go together with another

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Starts the watch, and in evaluation the counting of errors."""
        if stage != sb.Stage.TEST:
            self.stopwatch.start(stage.name.lower())
        if stage == sb.Stage.TRAIN:
            if self.step == 0:
                self.losses.sums.clear()
        else:
            self.errors = ErrorRates([NAME])
            self.errors.append_undecodable(self.undecodable)

    def compute_forward(self, batch: SpeechBatch, stage: sb.Stage) -> tuple[Tensor, ...]:
        """Encoder outputs and their frames, and the labels."""
        if batch.broken:
            raise DataError(f"{next(iter(batch.broken.values()))}: mend it, or take it out")
        batches = None
        if stage == sb.Stage.TRAIN:
            seed_step(self.recipe["seed"], self.counter.current, self.step)
            batches = self.optimizer_step * self.batches_a_step
        features, n_frames, labels = self.inputs(batch.to(self.device), batches)
        return *self.modules.model.encode(features, n_frames), labels

    def compute_objectives(
        self, predictions: tuple[Tensor, ...], batch: SpeechBatch, stage: sb.Stage
    ) -> Tensor:
        """The loss in training; else counts errors, and there is none."""
        if stage == sb.Stage.TRAIN:
            return self._loss(*predictions)
        encoded, n_frames, _ = predictions
        best = [found[0].tokens for found in self.searcher.search(encoded, n_frames)]
        words = [words_of_ids(self.tokenizer, tokens) for tokens in best]
        self.errors.append(NAME, batch.id, words, batch.words)
        return torch.tensor(0.0)

    def _loss(self, *predictions: Any) -> Tensor:
        transducer_weight, ctc_weight = self.weights()
        loss = self.modules.model.transducer_loss(*predictions)
        self.losses.add("transducer", loss.item(), len(predictions[1]))
        loss = transducer_weight * loss
        if ctc_weight:
            ctc = self.modules.model.ctc_loss(*predictions)
            self.losses.add("ctc", ctc.item(), len(predictions[1]))
            loss = loss + ctc_weight * ctc
        return loss

    def weights(self) -> tuple[float, float]:
        """Of the transducer loss and of CTC now."""
        if self.start == "ours":
            batches = self.optimizer_step * self.batches_a_step
            return 1.0, at(self.recipe["objective"].ctc_weight, batches)
        still = self.spent < CTC_SHARE * self.seconds
        return 1 - CTC_WEIGHT, CTC_WEIGHT if still else 0.0

    def on_fit_batch_end(self, batch: Any, outputs: Any, loss: Tensor, should_step: bool) -> None:
        """The next learning rate."""
        if should_step:
            self.scheduler(self.optimizer)

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """After validation takes down how it stands, and saves."""
        if stage != sb.Stage.VALID:
            return
        self.stopwatch.stop()
        rates = self.errors.rates()[NAME]
        record = {
            "epoch": epoch,
            "steps": self.optimizer_step,
            "processor seconds": round(self.spent, 1),
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.losses.means(),
            **rates,
        }
        print(self.folder.name, json.dumps(record), flush=True)
        kept = [x for x in read_history(self.folder) if x["epoch"] < epoch]
        lines = "".join(json.dumps(x) + "\n" for x in [*kept, record])
        write_atomic(self.folder / "history.jsonl", lines)
        self.checkpointer.save_and_keep_only(
            meta={"WER": rates["WER"], "epoch": epoch},
            min_keys=["WER"],
            num_to_keep=self.recipe["avg_checkpoints"],
        )

    # Evaluation

    def measure(self, data: SpeechDataset) -> dict[str, Any]:
        """Error rates, and the errors and speaker of each utterance, of the average of the best
        checkpoints.

        Args:
            data: dev or test.
        """
        self.evaluate(data, min_key="WER", test_loader_kwargs=self._loader(data, False))
        errors = self.errors.by_utterance()
        speakers = [data.speakers.get(key) or key for key in errors["utterances"]]
        return {
            **self.errors.rates()[NAME],
            **self.errors.scored(),
            "utterance": errors["utterances"],
            "words of": errors["words"],
            "errors": errors["errors"][NAME],
            "speakers": speakers,
        }

    def on_evaluate_start(self, max_key: str | None = None, min_key: str | None = None) -> None:
        """Loads the average of the best checkpoints."""
        n = self.recipe["avg_checkpoints"]
        recover_average(self.checkpointer, self.modules.model, n, max_key, min_key)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """What :class:`PeerBrain` took down, an object an epoch."""
    path = folder / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def build(
    recipe: Mapping[str, Any], folder: Path, size: Mapping[str, Any], **options: Any
) -> PeerBrain:
    """A training, from its seed.

    Args:
        recipe: hparams of ours, loaded.
        folder: of the training.
        size: arguments of :class:`ConformerTransducer`.
        options: arguments of :class:`PeerBrain`.
    """
    torch.manual_seed(recipe["seed"])
    np.random.seed(recipe["seed"] % 2**32)  # noqa: NPY002
    network = ConformerTransducer(recipe["vocab_size"], n_features=recipe["n_mels"], **size)
    return PeerBrain(network, recipe, folder, **options)
