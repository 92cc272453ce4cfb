"""The training loop: a SpeechBrain Brain whose step is a sandwich of subnets."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch import Tensor

from todm_sb.averages import Averages
from todm_sb.checkpoints import recover_average
from todm_sb.curves import TrainingHistory
from todm_sb.dataio.manifest import write_atomic
from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.distributed import (
    RankBatches,
    broadcast_weights,
    n_ranks,
    rank,
    sum_gradients,
    total,
    update_statistics_with_nothing,
)
from todm_sb.error_rates import ErrorRates
from todm_sb.errors import ConfigError
from todm_sb.guard import GradientGuard
from todm_sb.optim import ScaledAdam
from todm_sb.stopwatch import Stopwatch
from todm_sb.supernet import SearchSpace, SubnetConfig, count_parameters
from todm_sb.supernet.sandwich import (
    Labels,
    SubnetLosses,
    Trunk,
    sample_sandwich,
    sandwich_backward,
)
from todm_sb.watch import Watch, values_of_subnets

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
    ``output_folder``, ``avg_checkpoints``; may have ``wav_augment``, ``feature_augment``,
    ``augment_after``, ``tensorboard_logger``. The recipes' YAMLs explain them. The tokenizer is
    given to :meth:`use_tokenizer`.

    All randomness of a step follows from the seed, the epoch and the step's number: a run that was
    killed and resumed goes on as if it had not been.
    """

    watch: Watch | None = None

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

    # Training

    def on_fit_start(self) -> None:
        """Prepares optimizer and checkpoint as SpeechBrain does, and checks the settings."""
        # Kept in checkpoints, so that the means of an epoch that was broken off are of all of it.
        self.train_losses = Averages()
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
        super().on_fit_start()
        broadcast_weights(self.modules)
        if isinstance(self.optimizer, ScaledAdam) and np.isfinite(self.max_grad_norm):
            raise ConfigError(
                f"max_grad_norm is {self.max_grad_norm}, but ScaledAdam clips gradients itself: "
                "set max_grad_norm: .inf"
            )
        self.history = TrainingHistory(Path(self.hparams.output_folder))
        self.broken_audio: set[str] = set()
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

    def make_dataloader(self, dataset: Any, stage: sb.Stage, **kwargs: Any) -> Any:
        """As SpeechBrain's, but a batch sampler is told the epoch, and so shuffles anew in each.

        Each process gets its share of the batches, in validation and test too.
        """
        if "batch_sampler" in kwargs and n_ranks() > 1:
            even = stage == sb.Stage.TRAIN
            kwargs["batch_sampler"] = RankBatches(kwargs["batch_sampler"], even)
        loader = super().make_dataloader(dataset, stage, **kwargs)
        if stage == sb.Stage.TRAIN and self.train_sampler is None:
            self.train_sampler = kwargs.get("batch_sampler")
        return loader

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict) -> dict:
        return loader_kwargs  # make_dataloader has done it

    def _wrap_distributed(self) -> None:
        """Leaves the modules unwrapped; :mod:`todm_sb.distributed` says why."""

    def fit_batch(self, batch: SpeechBatch) -> Tensor:
        """One sandwich step; see :mod:`todm_sb.supernet.sandwich`.

        Returns:
            The max subnet's loss; not a number where no utterance of the batch could be read.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        rng = self._seed_step()
        subnets = [self.hparams.space.max]
        if self.optimizer_step >= self.hparams.sandwich_warmup:
            subnets = sample_sandwich(self.hparams.space, self.hparams.n_random, rng)
        causal = rng.choice(self.modules.model.encoder.modes)
        losses = self._backward_of_batch(batch, subnets, causal)
        if should_step:
            sum_gradients(self.modules.parameters())
            self.optimizers_step()
            self.hparams.lr_annealing(self.optimizer)
        if losses:
            self._count_losses(losses, len(batch.id))
            if self.watch is not None and should_step:
                self._watch_step(batch, subnets, losses)
        loss = losses[0].total.cpu() if losses else torch.tensor(float("nan"))
        self.on_fit_batch_end(batch, None, loss, should_step)
        return loss

    def _backward_of_batch(
        self, batch: SpeechBatch, subnets: list[SubnetConfig], causal: bool
    ) -> list[SubnetLosses]:
        """Adds this process's share of the gradients; no losses where its batch is empty."""
        self._name_broken_audio(batch)
        n = len(batch.id)
        n_of_all = total(n, self.device)
        if n == 0:
            if n_of_all:
                n_features = self.modules.model.config["encoder"]["n_features"]
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
        return due and self.step % self.grad_accumulation_factor == 0

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
            **values_of_subnets(subnets, losses, self.hparams.objective.divergence.alphas),
            "gradient norm": norm,
            "clipped": float(norm > limit),
            "left out": self.guard.left_out,
        }
        n = round(len(batch.id) / self.share)
        seconds = float(batch.duration.sum()) / self.share
        epoch = self.hparams.epoch_counter.current
        self.watch.record(self.optimizer_step, epoch, values, n, seconds)

    def _name_broken_audio(self, batch: SpeechBatch) -> None:
        """Logs audio that could not be read, each once."""
        for name, reason in batch.broken.items():
            if name not in self.broken_audio:
                self.broken_audio.add(name)
                logger.warning(
                    "%s is left out: %s; %d so far", name, reason, len(self.broken_audio)
                )

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
            self.scaler.scale(loss * (self.share / self.grad_accumulation_factor)).backward()

    def _count_losses(self, losses: list[SubnetLosses], n_utterances: int) -> None:
        """Notes the losses of the max subnet, the means of the others, and the divergence."""
        students = losses[1:]
        parts = {
            "max": [losses[0].transducer],
            "ctc": [losses[0].ctc],
            "simple": [losses[0].simple],
            "others": [x.transducer for x in students],
            "kd": [x.divergence for x in students],
        }
        for name, values in parts.items():
            known = [float(v) for v in values if v is not None and v.isfinite()]
            if known:
                self.train_losses.add(name, fmean(known), n_utterances)

    # Both training and evaluation

    def augments(self, stage: sb.Stage) -> bool:
        """Whether audio and features are augmented at this step."""
        after = getattr(self.hparams, "augment_after", 0)
        return stage == sb.Stage.TRAIN and self.optimizer_step >= after

    def _trunk(self, batch: SpeechBatch, stage: sb.Stage, causal: bool) -> tuple[Trunk, Labels]:
        """Features, augmented in training, and all that the subnets share."""
        batch = batch.to(self.device)
        wavs, wav_lens = batch.sig
        tokens, token_lens = batch.tokens
        augments = self.augments(stage)
        wav_augment = getattr(self.hparams, "wav_augment", None)
        feature_augment = getattr(self.hparams, "feature_augment", None)
        if augments and wav_augment is not None:
            wavs, wav_lens = wav_augment(wavs, wav_lens)
            tokens = wav_augment.replicate_labels(tokens)
            token_lens = wav_augment.replicate_labels(token_lens)
        features, n_frames = self.modules.features(
            wavs, wav_lens, epoch=self.hparams.epoch_counter.current
        )
        if augments and feature_augment is not None:
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
            The max subnet's loss.
        """
        trunk, labels = predictions
        model = self.modules.model
        losses, _ = self.hparams.objective(model, trunk, labels, None)
        beam_size = self.hparams.beam_size if stage == sb.Stage.TEST else 1
        searcher = TransducerSearcher(model, beam_size, self.hparams.max_symbols)
        first, *others = model.encoder.modes
        n_frames = trunk.frames.shape[1]
        spectra = {first: trunk.spectra}
        spectra |= {causal: model.encoder.spectra(n_frames, causal) for causal in others}
        for name, (subnet, causal) in self.measured.items():
            encoded = model.encoder.encode(trunk.frames, trunk.n_frames, subnet, spectra[causal])
            found = searcher.search(encoded, trunk.n_frames)
            words = [self.tokenizer.decode_ids(best.tokens).split() for best, *_ in found]
            self.errors.append(name, batch.id, words, batch.words)
        self.losses.add("max", float(losses.total), len(batch.id))
        return losses.total

    def evaluate_batch(self, batch: SpeechBatch, stage: sb.Stage) -> Tensor:
        """As SpeechBrain's, for what of the batch could be read."""
        self._name_broken_audio(batch)
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
            loss = self.losses.means_of_all()["max"]
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
            self.history.add(epoch, {**stats, **self.train_stats}, valid)
            self._write_cost()
        self.checkpointer.save_and_keep_only(
            meta={"WER": mean_wer, "epoch": epoch},
            min_keys=["WER"],
            num_to_keep=self.hparams.avg_checkpoints,
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
            self.checkpointer, self.modules.model, self.hparams.avg_checkpoints, max_key, min_key
        )

    def results(self) -> list[dict[str, Any]]:
        """After a test: shape, mode, parameters, WER and CER of each subnet in each mode.

        The parameters of a dual-mode network's causal mode are those of its causal form.
        """
        model, rates = self.modules.model, self.errors.rates()
        first, *others = model.encoder.modes
        forms = {first: model, **{causal: model.causal_form() for causal in others}}
        return [
            {
                "subnet": name,
                **subnet.to_dict(),
                "causal": causal,
                "parameters": count_parameters(forms[causal], subnet),
                **rates[name],
            }
            for name, (subnet, causal) in self.measured.items()
        ]
