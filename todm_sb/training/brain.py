"""The training loop: a SpeechBrain Brain whose step is a sandwich of subnets."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch import Tensor

from todm_sb.dataio.fingerprint import dev_set_id, fingerprint
from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.dataio.text import words_of_ids
from todm_sb.optim import ScaledAdam
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.supernet.sandwich import (
    Labels,
    SubnetLosses,
    Trunk,
    sample_sandwich,
    sandwich_backward,
)
from todm_sb.training.averages import Averages
from todm_sb.training.checkpoints import WER_OF, competes, log_those_apart, recover_average
from todm_sb.training.curves import TrainingHistory
from todm_sb.training.distributed import (
    RankBatches,
    broadcast_weights,
    n_ranks,
    rank,
    sum_gradients,
    total,
    update_statistics_with_nothing,
)
from todm_sb.training.error_rates import ErrorRates
from todm_sb.training.guard import GradientGuard
from todm_sb.training.loss_names import means_of_step
from todm_sb.training.runs import weights_id
from todm_sb.training.searcher import decoding_of, searcher_of
from todm_sb.training.settings import check_batches
from todm_sb.training.stopwatch import Stopwatch
from todm_sb.training.watch import Watch, values_of_subnets
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.processes import on_first
from todm_sb.utils.progress import watched

logger = logging.getLogger(__name__)

# A loss scaler starts at 2^16 and halves it whenever a gradient overflows.
HALVINGS_OF_SCALE = 16


class TODMBrain(sb.Brain):
    """Trains a supernet and measures its subnets.

    Needs in ``modules``: ``features`` (:class:`todm_sb.nnet.features.SpeechFeatures`),
    ``normalize`` (its normaliser, so that SpeechBrain moves it between devices) and ``model``
    (:class:`todm_sb.nnet.transducer.Transducer`).

    Needs in ``hparams``: ``space``, ``objective``, ``n_random``, ``sandwich_warmup``,
    ``micro_batches``, ``named_subnets``, ``max_symbols``, ``beam_size``, ``seed``,
    ``epoch_counter``, ``lr_annealing`` (:class:`todm_sb.optim.Eden`), ``train_logger``,
    ``output_folder``, ``avg_checkpoints``, ``valid_csv``; may have ``searcher``, ``wav_augment``,
    ``feature_augment``, ``tensorboard_logger``. The recipes' YAMLs explain them. The tokenizer is
    given to :meth:`use_tokenizer`.

    All randomness of a step follows from the seed, the epoch and the step's number: a run that was
    killed and resumed goes on as if it had not been.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As SpeechBrain's.

        Raises:
            ConfigError: if ``precision`` is fp16 on a CPU.
        """
        try:
            super().__init__(*args, **kwargs)
        except ValueError as error:
            if "fp16" not in str(error):
                raise
            raise ConfigError(
                "precision fp16 needs a GPU: on a CPU take --precision=bf16 or fp32"
            ) from None
        self.noprogressbar |= not watched()
        # Kept in checkpoints, so that the means of an epoch that was broken off are of all of it.
        self.train_losses = Averages()
        self.train_stats: dict[str, float] = {}
        self.stopwatch = Stopwatch()
        halvings = HALVINGS_OF_SCALE if self.scaler.is_enabled() else 0
        self.guard = GradientGuard(self.nonfinite_patience + halvings)
        if self.checkpointer is not None:
            kept_by_name = {
                "train_losses": self.train_losses,
                "stopwatch": self.stopwatch,
                "gradient_guard": self.guard,
            }
            for name, kept in kept_by_name.items():
                self.checkpointer.add_recoverable(
                    name, kept, type(kept).load, type(kept).save, optional_load=True
                )
        # Batches whose gradients wait for the optimizer's step.
        self.gathered = 0
        # Of the first process, while it trains.
        self.watch: Watch | None = None
        # Names and reasons, with the file: two splits can have utterances of one name.
        self.broken_audio: set[tuple[str, str]] = set()
        # By stage, those that the loaders were made of.
        self.datasets: dict[sb.Stage, Any] = {}
        # Of the stage that is under way, or was the last.
        self.losses = Averages()
        self.errors = ErrorRates(())

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Sets the tokenizer that turns label ids into words."""
        self.tokenizer = tokenizer

    @cached_property
    def subnets(self) -> dict[str, SubnetConfig]:
        """The subnets that validation and test measure, by name: max, min and the YAML's own.

        One that is null in the YAML is not measured.

        Raises:
            ConfigError: if one is outside the search space.
        """
        space: SearchSpace = self.hparams.space
        if space.size == 1:
            return {"max": space.max}
        named = {
            name: space.check(SubnetConfig.from_dict(subnet))
            for name, subnet in (self.hparams.named_subnets or {}).items()
            if subnet is not None
        }
        return {"max": space.max, **named, "min": space.min}

    @cached_property
    def measured(self) -> dict[str, tuple[SubnetConfig, bool]]:
        """What validation and test measure, by name: each subnet in each mode of the encoder."""
        modes = self.modules.model.encoder.modes
        return {
            name if causal == modes[0] else f"{name}-causal": (subnet, causal)
            for causal in modes
            for name, subnet in self.subnets.items()
        }

    @cached_property
    def history(self) -> TrainingHistory:
        """The course of the training."""
        return TrainingHistory(Path(self.hparams.output_folder))

    @cached_property
    def wer_of(self) -> dict[str, str]:
        """What the WER of a checkpoint is of: the dev set and how it is measured."""
        measured = [(subnet.to_json(), causal) for subnet, causal in self.measured.values()]
        decoding = decoding_of(vars(self.hparams), self.modules.model)
        dev_set = on_first(dev_set_id, self.hparams.valid_csv, self.tokenizer)
        return {
            "dev_set": dev_set,
            "measured": fingerprint([sorted(measured), decoding]),
        }

    # Training

    def on_fit_start(self) -> None:
        """Prepares optimizer and checkpoint as SpeechBrain does."""
        super().on_fit_start()
        if self.checkpointer is not None:
            log_those_apart(self.checkpointer, self.wer_of)
        broadcast_weights(self.modules)
        if rank() == 0:
            tensorboard = getattr(self.hparams, "tensorboard_logger", None)
            writer = None if tensorboard is None else tensorboard.writer
            self.watch = Watch(Path(self.hparams.output_folder), self.optimizer_step, writer)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Resets the metrics; at the start of an epoch, also the schedule and the data order."""
        if stage != sb.Stage.TEST:
            self.stopwatch.start(stage.name.lower())
        if stage == sb.Stage.TRAIN:
            if self.step == 0:
                self.train_losses.sums.clear()
            self.hparams.lr_annealing.set_epoch(epoch - 1)
            self.hparams.lr_annealing.apply(self.optimizer)
            if self.watch is not None:
                self.watch.start()
        else:
            self.losses = Averages()
            self.errors = ErrorRates(self.measured)
            if rank() == 0:
                self.errors.append_undecodable(self._of_dataset(stage, "undecodable"))

    def make_dataloader(self, dataset: Any, stage: sb.Stage, **kwargs: Any) -> Any:
        """As SpeechBrain's, but a batch sampler is told the epoch, and so shuffles anew in each.

        Each process gets its share of the batches, in validation and test too.

        Raises:
            ConfigError: if an epoch of training has fewer batches than a step takes.
        """
        if "batch_sampler" in kwargs and n_ranks() > 1:
            even = stage == sb.Stage.TRAIN
            kwargs["batch_sampler"] = RankBatches(kwargs["batch_sampler"], even)
        self.datasets[stage] = dataset
        loader = super().make_dataloader(dataset, stage, **kwargs)
        if stage == sb.Stage.TRAIN:
            check_batches(len(loader), self.grad_accumulation_factor)
            if self.train_sampler is None:
                self.train_sampler = kwargs.get("batch_sampler")
        return loader

    def _of_dataset(self, stage: sb.Stage, name: str) -> dict[str, Any]:
        """What the dataset of a stage tells of utterances that are not in it; a loader that was
        made elsewhere tells nothing."""
        return getattr(self.datasets.get(stage), name, {})

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict) -> dict:
        return loader_kwargs  # make_dataloader has done it

    def _wrap_distributed(self) -> None:
        """Leaves the modules unwrapped; :mod:`todm_sb.training.distributed` says why."""

    def fit_batch(self, batch: SpeechBatch) -> Tensor:
        """One sandwich step; see :mod:`todm_sb.supernet.sandwich`.

        Returns:
            The max subnet's loss; not a number where no utterance of the batch could be read.
        """
        should_step = self._ends_step()
        self.on_fit_batch_start(batch, should_step)
        rng = self._seed_step()
        subnets = [self.hparams.space.max]
        if self.optimizer_step >= self.hparams.sandwich_warmup:
            subnets = sample_sandwich(self.hparams.space, self.hparams.n_random, rng)
        causal = rng.choice(self.modules.model.encoder.modes)
        losses = self._backward_of_batch(batch, subnets, causal)
        if should_step:
            sum_gradients(self.modules.parameters())
            self._average_gradients()
            self.optimizers_step()
            self.hparams.lr_annealing(self.optimizer)
        if losses:
            self._count_losses(losses, len(batch.id))
            if self.watch is not None and should_step:
                self._watch_step(batch, subnets, losses)
        loss = losses[0].total.cpu() if losses else torch.tensor(float("nan"))
        self.on_fit_batch_end(batch, None, loss, should_step)
        return loss

    def _ends_step(self) -> bool:
        """Whether the optimizer steps after this batch: the last of a group, or of the epoch."""
        if self.step % self.grad_accumulation_factor == 0:
            return True
        if self.debug and self.step == self.debug_batches:
            return True
        return self.train_sampler is not None and self.step == len(self.train_sampler)

    def _average_gradients(self) -> None:
        """Divides the sum over the batches gathered by their number, those that are empty in all
        processes and an epoch's missing ones not counted."""
        gradients = [p.grad for p in self.modules.parameters() if p.grad is not None]
        if self.gathered > 1 and gradients:
            torch._foreach_div_(gradients, self.gathered)
        self.gathered = 0

    def _backward_of_batch(
        self, batch: SpeechBatch, subnets: list[SubnetConfig], causal: bool
    ) -> list[SubnetLosses]:
        """Adds this process's share of the gradients; no losses where its batch is empty."""
        self._name_broken_audio(batch)
        n = len(batch.id)
        n_of_all = total(n, self.device)
        self.gathered += n_of_all > 0
        if n == 0:
            if n_of_all:
                n_features = self.modules.model.encoder.n_features
                epoch = self.hparams.epoch_counter.current
                update_statistics_with_nothing(self.modules.normalize, n_features, epoch)
            return []
        # Losses are means over the utterances of a process, the gradient is that over all.
        self.share = n / n_of_all
        with self.training_ctx:
            trunk, labels = self._trunk(batch, sb.Stage.TRAIN, causal)
            losses = sandwich_backward(
                self.modules.model,
                self.hparams.objective,
                trunk,
                labels,
                subnets,
                self._backward,
                self.optimizer_step,
                self.hparams.micro_batches,
            )
        return losses

    def optimizers_step(self) -> None:
        """One step of the optimizer, left out where a gradient is not finite."""
        self.optimizer_step += 1
        if all(p.grad is None for p in self.modules.parameters()):  # no audio could be read
            return
        self.scaler.unscale_(self.optimizer)
        if self.guard.passes(self.modules.named_parameters()):
            if np.isfinite(self.max_grad_norm):
                torch.nn.utils.clip_grad_norm_(self.modules.parameters(), self.max_grad_norm)
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _should_save_intra_epoch_ckpt(self, last_ckpt_time: float, steps_since_ckpt: int) -> bool:
        """As SpeechBrain's, but not while gradients are gathered, which no checkpoint holds."""
        due = super()._should_save_intra_epoch_ckpt(last_ckpt_time, steps_since_ckpt)
        return due and self._ends_step()

    def _watch_step(
        self, batch: SpeechBatch, subnets: list[SubnetConfig], losses: list[SubnetLosses]
    ) -> None:
        """Takes down a step; where gradients are accumulated, its last batch."""
        if isinstance(self.optimizer, ScaledAdam):
            clipping = self.optimizer.clipping_stats()[0]
            norm, limit = clipping["grad_norm"], clipping["threshold"]
        else:
            norm, limit = self.guard.norm, self.max_grad_norm
        values = {
            "lr": self.optimizer.param_groups[0]["lr"],
            **values_of_subnets(subnets, losses),
            "gradient norm": norm,
            "clipped": float(norm > limit),
            "left out": self.guard.left_out,
        }
        n = round(len(batch.id) / self.share)
        seconds = float(batch.duration.sum()) / self.share
        epoch = self.hparams.epoch_counter.current
        self.watch.record(self.optimizer_step, epoch, values, n, seconds)

    def _name_broken_audio(self, batch: SpeechBatch, consequence: str = "is left out") -> None:
        """Logs audio that could not be decoded, each once."""
        for name, reason in batch.broken.items():
            if (name, reason) not in self.broken_audio:
                self.broken_audio.add((name, reason))
                n = len(self.broken_audio)
                logger.warning("%s %s: %s; %d so far", name, consequence, reason, n)

    def _seed_step(self) -> random.Random:
        """Seeds all generators for this step; the returned one is the same on every rank."""
        epoch = self.hparams.epoch_counter.current
        step = f"{self.hparams.seed}/{epoch}/{self.step}"
        # SpeechBrain's augmenters draw from the global generators.
        digest = hashlib.sha256(f"{step}/{rank()}".encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        np.random.seed(int.from_bytes(digest[8:12], "little"))  # noqa: NPY002
        random.seed(digest)
        return random.Random(step)

    def _backward(self, loss: Tensor) -> None:
        # Backward repeats each operation in the precision that its forward had.
        with torch.autocast(self.device_type, enabled=False):
            self.scaler.scale(loss * self.share).backward()

    def _count_losses(self, losses: list[SubnetLosses], n_utterances: int) -> None:
        """Takes the losses of a batch into the means of the epoch."""
        for name, value in means_of_step(losses).items():
            self.train_losses.add(name, value, n_utterances)

    # Both training and evaluation

    def _trunk(self, batch: SpeechBatch, stage: sb.Stage, causal: bool) -> tuple[Trunk, Labels]:
        """Features, augmented in training, and all that the subnets share."""
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        tokens, token_lens = batch.tokens
        training = stage == sb.Stage.TRAIN
        wav_augment = getattr(self.hparams, "wav_augment", None)
        feature_augment = getattr(self.hparams, "feature_augment", None)
        if training and wav_augment is not None:
            wavs, wav_lens = wav_augment(wavs, wav_lens)
            tokens = wav_augment.replicate_labels(tokens)
            token_lens = wav_augment.replicate_labels(token_lens)
        features, n_frames = self.modules.features(
            wavs, wav_lens, epoch=self.hparams.epoch_counter.current
        )
        if training and feature_augment is not None:
            features, _ = feature_augment(features, n_frames / features.shape[1])
        n_tokens = (token_lens * tokens.shape[1]).round().long()
        trunk = Trunk.compute(self.modules.model, features, n_frames, tokens, causal)
        return trunk, Labels(tokens, n_tokens)

    # Evaluation

    def compute_forward(self, batch: SpeechBatch, stage: sb.Stage) -> tuple[Trunk, Labels]:
        """The trunk, once for all subnets measured."""
        return self._trunk(batch, stage, self.modules.model.encoder.modes[0])

    def compute_objectives(
        self, predictions: tuple[Trunk, Labels], batch: SpeechBatch, stage: sb.Stage
    ) -> Tensor:
        """Reads the batch with every measured subnet.

        Returns:
            The max subnet's loss in validation; else, and where there is none, not a number.
        """
        trunk, labels = predictions
        model = self.modules.model
        loss = torch.tensor(float("nan"))
        if stage == sb.Stage.VALID:
            loss = self._validation_loss(trunk, labels)
        searcher = searcher_of(vars(self.hparams), model)
        searcher = searcher if stage == sb.Stage.TEST else searcher.greedy()
        first, *others = model.encoder.modes
        n_frames = trunk.frames.shape[1]
        shared = {first: trunk.shared}
        shared |= {causal: model.encoder.shared(n_frames, causal) for causal in others}
        for name, (subnet, causal) in self.measured.items():
            encoded = model.encoder.encode(trunk.frames, trunk.n_frames, subnet, shared[causal])
            found = searcher.search(encoded, trunk.n_frames)
            words = [words_of_ids(self.tokenizer, best.tokens) for best, *_ in found]
            self.errors.append(name, batch.id, words, batch.words)
        return loss

    def _validation_loss(self, trunk: Trunk, labels: Labels) -> Tensor:
        """The max subnet's loss of the utterances that one can be trained on: those with labels,
        and no more than frames. The others count in the error rates alone."""
        fits = (labels.lengths > 0) & (labels.lengths <= trunk.n_frames)
        if not bool(fits.any()):
            return torch.tensor(float("nan"))
        if not bool(fits.all()):
            part = fits.nonzero().squeeze(1)
            labels = labels.rows(part)
            trunk = trunk.rows(part, labels.ids.shape[1])
        losses, _ = self.hparams.objective(self.modules.model, trunk, labels, None)
        self.losses.add("max", float(losses.total), len(labels.lengths))
        return losses.total

    def evaluate_batch(self, batch: SpeechBatch, stage: sb.Stage) -> Tensor:
        """As SpeechBrain's, for what of the batch could be decoded; the rest counts as deleted."""
        self._name_broken_audio(batch, "cannot be decoded, its words count as deleted")
        self.errors.append_undecodable(batch.broken_words)
        return super().evaluate_batch(batch, stage) if batch.id else torch.tensor(float("nan"))

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Logs; after validation saves a checkpoint, after a test writes the alignments."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = self.train_losses.means_of_all()
            if self.watch is not None:
                self.watch.summarise(self.optimizer_step, epoch)
            return
        self.errors.merge()
        rates = self.errors.rates()
        mean_wer = sum(r["WER"] for r in rates.values()) / len(rates)
        flat = {f"{key} {name}": v for name, r in rates.items() for key, v in r.items()}
        if stage == sb.Stage.VALID:
            loss = self.losses.means_of_all().get("max", float("nan"))
            self._end_of_validation(epoch, loss, mean_wer, flat)
        else:
            self.hparams.train_logger.log_stats({"test": "done"}, test_stats=flat)

    def _end_of_validation(
        self, epoch: int, valid_loss: float, mean_wer: float, rates: dict[str, float]
    ) -> None:
        self.stopwatch.stop()
        stats = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        valid = {"loss": valid_loss, **rates}
        for train_logger in (
            self.hparams.train_logger,
            getattr(self.hparams, "tensorboard_logger", None),
        ):
            if train_logger is not None:  # it writes in the first process, but all must call it
                train_logger.log_stats(stats, self.train_stats, valid)
        if sb.utils.distributed.if_main_process():
            self.history.add(epoch, {**stats, **self.train_stats}, valid, self.wer_of)
            self._write_cost()
        self.checkpointer.save_and_keep_only(
            meta={"WER": mean_wer, "epoch": epoch, WER_OF: self.wer_of},
            min_keys=["WER"],
            num_to_keep=self.hparams.avg_checkpoints,
            ckpt_predicate=competes(self.wer_of),
        )

    def _write_cost(self) -> None:
        """What training has cost so far; as the seconds, of this process."""
        cost = {
            "optimizer_steps": self.optimizer_step,
            "threads": torch.get_num_threads(),
            "seconds": self.stopwatch.seconds(),
        }
        path = Path(self.hparams.output_folder) / "cost.json"
        write_atomic(path, json.dumps(cost, indent=2) + "\n")

    def on_evaluate_start(self, max_key: str | None = None, min_key: str | None = None) -> None:
        """Loads the average of the best checkpoints."""
        recover_average(
            self.checkpointer,
            self.modules.model,
            self.hparams.avg_checkpoints,
            max_key,
            min_key,
            self.wer_of,
        )

    def results(self) -> list[dict[str, Any]]:
        """After a test: shape, mode, parameters, WER and CER of each subnet in each mode, what the
        error rates are of (see :meth:`ErrorRates.scored`; ``left_out`` is no utterance), and the
        id of the weights.

        The parameters of a dual-mode network's causal mode are those of its causal form.
        """
        model, rates = self.modules.model, self.errors.rates()
        scored = {**self.errors.scored(), "left_out": self._of_dataset(sb.Stage.TEST, "left_out")}
        first, *others = model.encoder.modes
        forms = {first: model, **{causal: model.causal_form() for causal in others}}
        weights = weights_id(model)
        return [
            {
                "subnet": name,
                **subnet.to_dict(),
                "causal": causal,
                "parameters": count_parameters(forms[causal], subnet),
                **rates[name],
                **scored,
                "weights": weights,
            }
            for name, (subnet, causal) in self.measured.items()
        ]
