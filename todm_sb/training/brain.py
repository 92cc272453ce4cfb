"""The training loop: a SpeechBrain Brain whose step is a sandwich of subnets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from torch import Tensor

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.dataio.reading import reading_of
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.training.averages import Averages
from todm_sb.training.broken_audio import COUNTS_AS_DELETED, BrokenAudioLog
from todm_sb.training.checkpoints import (
    AVERAGE,
    WER,
    WER_OF,
    WER_OF_MAX,
    competes,
    keep,
    log_those_apart,
    recover_average,
)
from todm_sb.training.distributed import RankBatches, broadcast_weights, n_ranks, rank
from todm_sb.training.epoch_log import log_epoch, write_cost
from todm_sb.training.epoch_position import EpochPosition
from todm_sb.training.evaluation import Evaluation, Measured, forms_to_measure, what_wer_is_of
from todm_sb.training.guard import GradientGuard
from todm_sb.training.loss_names import means_of_step
from todm_sb.training.pace import check_batches, pace_of
from todm_sb.training.precision import fp16_needs_a_gpu
from todm_sb.training.searcher import decoding_of
from todm_sb.training.seeding import seed_step
from todm_sb.training.step import SandwichStep, Trained, record_of_step
from todm_sb.training.stopwatch import Stopwatch
from todm_sb.training.watch import Watch, values_of_gradient
from todm_sb.training.weight_average import WeightAverage
from todm_sb.utils.progress import watched

logger = logging.getLogger(__name__)

# A loss scaler starts at 2^16 and halves it whenever a gradient overflows.
HALVINGS_OF_SCALE = 16

# What SpeechBrain calls the loader of the training data in checkpoints.
LOADER = "dataloader-TRAIN"


class TODMBrain(sb.Brain):
    """Trains a supernet and measures its subnets.

    Needs in ``modules``: ``features`` (:class:`todm_sb.nnet.features.SpeechFeatures`),
    ``normalize`` (its normaliser, so that SpeechBrain moves it between devices) and ``model``
    (:class:`todm_sb.nnet.transducer.Transducer`).

    Needs in ``hparams``: ``space``, ``objective``, ``n_random``, ``sandwich_warmup``,
    ``micro_batches``, ``named_subnets``, ``max_symbols``, ``beam_size``, ``seed``,
    ``epoch_counter``, ``lr_annealing`` (:class:`todm_sb.optim.Eden`), ``train_logger``,
    ``output_folder``, ``avg_checkpoints``, ``valid_csv``; may have ``searcher``, ``wav_augment``,
    ``feature_augment``, ``augment_after``, ``mask_after``, ``uniform_share``, ``gradient_sums``,
    ``average_every``, ``tensorboard_logger``, and ``reference_batch_seconds`` with
    ``max_batch_seconds`` (:mod:`todm_sb.training.pace`). The recipes' YAMLs explain them.

    All randomness of a step follows from the seed, the epoch and the step's number: a run that was
    killed and resumed goes on as if it had not been.
    """

    def __init__(self, *args: Any, tokenizer: Any = None, **kwargs: Any) -> None:
        """As SpeechBrain's.

        Args:
            args, kwargs: SpeechBrain's.
            tokenizer: turns label ids into words, in evaluation.

        Raises:
            ConfigError: if ``precision`` is fp16 on a CPU, or a named subnet is outside the space.
        """
        with fp16_needs_a_gpu():
            super().__init__(*args, **kwargs)
        self.pace = pace_of(vars(self.hparams), self.grad_accumulation_factor, n_ranks())
        self.grad_accumulation_factor = self.pace.grad_accumulation_factor
        self.noprogressbar |= not watched()
        self.tokenizer = tokenizer
        self.sandwich = SandwichStep.of(self.modules, vars(self.hparams), self.pace)
        modes = self.modules.model.encoder.modes
        self.measured = forms_to_measure(self.hparams.space, self.hparams.named_subnets, modes)
        # Kept in checkpoints, so that the means of an epoch that was broken off are of all of it.
        self.train_losses = Averages()
        self.train_stats: dict[str, float] = {}
        self.stopwatch = Stopwatch()
        halvings = HALVINGS_OF_SCALE if self.scaler.is_enabled() else 0
        self.guard = GradientGuard(self.nonfinite_patience + halvings)
        every = getattr(self.hparams, "average_every", None)
        self.average = WeightAverage(self.modules.model, every)
        self.position = EpochPosition()
        self.broken_audio = BrokenAudioLog()
        # Of this process, since the optimizer's last step.
        self.trained: list[Trained] = []
        # Of the first process, while it trains.
        self.watch: Watch | None = None
        # By stage, those that the loaders were made of.
        self.datasets: dict[sb.Stage, Any] = {}
        # Of the stage that is under way, or was the last.
        self.evaluation = self._evaluation(sb.Stage.VALID, self.measured)
        if self.checkpointer is not None:
            decoding = decoding_of(vars(self.hparams), self.modules.model)
            self.wer_of = what_wer_is_of(
                self.measured,
                [decoding, AVERAGE] if every else decoding,
                self.hparams.valid_csv,
                self.tokenizer,
                reading_of(vars(self.hparams)),
            )
            keep(
                self.checkpointer,
                train_losses=self.train_losses,
                stopwatch=self.stopwatch,
                gradient_guard=self.guard,
            )
            keep(self.checkpointer, optional=True, position=self.position)
            if every:
                keep(self.checkpointer, optional=True, **{AVERAGE: self.average})

    # Training

    def on_fit_start(self) -> None:
        """Prepares optimizer and checkpoint as SpeechBrain does."""
        super().on_fit_start()
        if self._optimizer_step_limit_exceeded:  # SpeechBrain would validate one epoch more
            self.hparams.epoch_counter.limit = self.hparams.epoch_counter.current
        if self.checkpointer is not None:
            log_those_apart(self.checkpointer, self.wer_of)
        broadcast_weights(self.modules)
        if rank() == 0:
            writer = getattr(getattr(self.hparams, "tensorboard_logger", None), "writer", None)
            self.watch = Watch(Path(self.hparams.output_folder), self.optimizer_step, writer)

    def _go_on(self, epoch: int) -> None:
        """Goes on at the part of the epoch where the checkpoint was written, if it was in one."""
        if hasattr(self.train_sampler, "set_epoch"):  # before it is told how many batches there are
            self.train_sampler.set_epoch(epoch)
        if self.train_sampler is not None:
            self.position.n_batches = len(self.train_sampler)
        if self.step == 0 or self.debug or self.checkpointer is None:
            return
        step = self.position.after(self.step, self.grad_accumulation_factor)
        loader = self.checkpointer.recoverables.get(LOADER)
        if step == self.step or loader is None:
            return
        logger.info(
            "the epoch was broken off after %d of %d batches, and goes on after %d of %d",
            self.step,
            self.position.n_saved,
            step,
            self.position.n_batches,
        )
        self.step = loader._speechbrain_recovery_skip_to = step

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Resets the metrics; at the start of an epoch, also the schedule and the data order."""
        if stage != sb.Stage.TEST:
            self.stopwatch.start(stage.name.lower())
        if stage == sb.Stage.TRAIN:
            self._go_on(epoch)
            if self.step == 0:
                self.train_losses.sums.clear()
                self.average.begin()
            self.hparams.lr_annealing.set_epoch(epoch - 1)
            self.hparams.lr_annealing.apply(self.optimizer)
            if self.watch is not None:
                self.watch.start()
        else:
            if stage == sb.Stage.VALID:
                self.average.swap()
            self.evaluation = self._evaluation(stage, self._measured_in(stage))

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
        """What the dataset of a stage tells of the manifest's utterances; a loader that was made
        elsewhere tells nothing."""
        return getattr(self.datasets.get(stage), name, {})

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict) -> dict:
        return loader_kwargs  # make_dataloader has done it

    def _wrap_distributed(self) -> None:
        """Leaves the modules unwrapped; :mod:`todm_sb.training.distributed` says why."""

    def fit_batch(self, batch: SpeechBatch) -> Tensor:
        """One sandwich step; see :mod:`todm_sb.training.step`.

        Returns:
            The max subnet's loss; not a number where no utterance of the batch could be read.
        """
        should_step = self._ends_step()
        self.on_fit_batch_start(batch, should_step)
        self.broken_audio.warn(batch.broken, "is left out")
        rng = seed_step(self.hparams.seed, self.hparams.epoch_counter.current, self.step)
        # Reference batches so far; Eden keeps them in checkpoints.
        batches = self.hparams.lr_annealing.batch
        with self.training_ctx:
            trained = self.sandwich.add(batch, batches, rng, self._backward, self.device)
        if should_step:
            self.sandwich.finish(self.modules.parameters())
            self.optimizers_step()
            self.average.add(self.optimizer_step)
            self.hparams.lr_annealing(self.optimizer, self.pace.reference_batches)
        if trained is not None:
            self.trained.append(trained)
            for name, value in means_of_step(trained.losses).items():
                self.train_losses.add(name, value, trained.utterances)
        if should_step:
            self._record_step()
        loss = torch.tensor(trained.losses[0].total if trained is not None else float("nan"))
        self.on_fit_batch_end(batch, None, loss, should_step)
        return loss

    def _record_step(self) -> None:
        trained, self.trained = self.trained, []
        if self.watch is not None and trained:
            lr = self.optimizer.param_groups[0]["lr"]
            gradient = values_of_gradient(self.optimizer, self.guard, self.max_grad_norm)
            record = record_of_step(trained, lr, gradient)
            self.watch.record(self.optimizer_step, self.hparams.epoch_counter.current, **record)

    def _ends_step(self) -> bool:
        """Whether the optimizer steps after this batch: the last of a group, or of the epoch."""
        if self.step % self.grad_accumulation_factor == 0:
            return True
        if self.debug and self.step == self.debug_batches:
            return True
        return self.train_sampler is not None and self.step == len(self.train_sampler)

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
        """As SpeechBrain's, but not while gradients are gathered, which no checkpoint holds; and
        processes that count steps need not tell each other."""
        if not self._ends_step() or self.checkpointer is None:
            return False
        if self.ckpt_interval_steps > 0:
            return steps_since_ckpt >= self.ckpt_interval_steps
        return super()._should_save_intra_epoch_ckpt(last_ckpt_time, steps_since_ckpt)

    def _backward(self, loss: Tensor) -> None:
        # Backward repeats each operation in the precision that its forward had.
        with torch.autocast(self.device_type, enabled=False):
            self.scaler.scale(loss).backward()

    # Evaluation

    def _measured_in(self, stage: sb.Stage) -> Measured:
        """All, but in validation only max as long as no other subnet is trained."""
        batches = self.hparams.lr_annealing.batch
        if stage != sb.Stage.VALID or not self.sandwich.max_alone(batches):
            return self.measured
        return {k: v for k, v in self.measured.items() if v[0] == self.hparams.space.max}

    def _evaluation(self, stage: sb.Stage, measured: Measured) -> Evaluation:
        model, hparams = self.modules.model, vars(self.hparams)
        validates = stage == sb.Stage.VALID
        evaluation = Evaluation.of(model, measured, hparams, self.tokenizer, validates)
        if rank() == 0:
            evaluation.errors.append_undecodable(self._of_dataset(stage, "undecodable"))
        return evaluation

    def compute_forward(self, batch: SpeechBatch, stage: sb.Stage) -> tuple[Trunk, Labels]:
        """The trunk, once for all subnets measured."""
        batch = batch.to(self.device, non_blocking=True)
        return self.sandwich.shared_part(batch, self.modules.model.encoder.modes[0])

    def compute_objectives(
        self, predictions: tuple[Trunk, Labels], batch: SpeechBatch, stage: sb.Stage
    ) -> Tensor:
        """Transcribes the batch; see :meth:`todm_sb.training.evaluation.Evaluation.add`."""
        return self.evaluation.add(*predictions, batch.id, batch.words)

    def evaluate_batch(self, batch: SpeechBatch, stage: sb.Stage) -> Tensor:
        """As SpeechBrain's, for what of the batch could be decoded; the rest counts as deleted."""
        self.broken_audio.warn(batch.broken, COUNTS_AS_DELETED)
        self.evaluation.errors.append_undecodable(batch.broken_words)
        return super().evaluate_batch(batch, stage) if batch.id else torch.tensor(float("nan"))

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Logs; after validation saves a checkpoint, after a test writes the alignments."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = self.train_losses.means_of_all()
            if self.watch is not None:
                self.watch.summarise(self.optimizer_step, epoch)
            return
        self.evaluation.errors.merge()
        if stage == sb.Stage.VALID:
            self._end_of_validation(epoch)
        else:
            stats = self.evaluation.errors.by_rate_and_name()
            self.hparams.train_logger.log_stats({"test": "done"}, test_stats=stats)

    def _end_of_validation(self, epoch: int) -> None:
        self.average.swap()
        self.stopwatch.stop()
        stats = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        valid = self.evaluation.stats()
        folder = Path(self.hparams.output_folder)
        loggers = [self.hparams.train_logger, getattr(self.hparams, "tensorboard_logger", None)]
        log_epoch(loggers, folder, stats, self.train_stats, valid, self.wer_of)
        write_cost(folder, self.optimizer_step, self.stopwatch)
        wer = WER if self.evaluation.measured == self.measured else WER_OF_MAX
        self.checkpointer.save_and_keep_only(
            meta={wer: self.evaluation.errors.mean_wer(), "epoch": epoch, WER_OF: self.wer_of},
            min_keys=[wer],
            num_to_keep=self.hparams.avg_checkpoints,
            ckpt_predicate=competes(self.wer_of),
        )

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

    def write_results(self, folder: Path, split: str) -> list[dict[str, Any]]:
        """After a test; see :meth:`todm_sb.training.evaluation.Evaluation.write`."""
        told = (self._of_dataset(sb.Stage.TEST, name) for name in ("left_out", "speakers"))
        return self.evaluation.write(folder, split, *told)
