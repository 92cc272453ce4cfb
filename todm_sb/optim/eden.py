"""Eden: a learning rate that falls with the batches and with the epochs (Yao et al. 2023)."""

from __future__ import annotations

import math
import os

import torch
from speechbrain.utils import checkpoints
from torch.optim import Optimizer

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import number, positive_or_infinite


@checkpoints.register_checkpoint_hooks
class Eden:
    """Eden schedule of Zipformer (arXiv:2310.11230, Sec. 3.5).

    With t batches and e epochs done, both of which may be fractions,

        lr(t, e) = lr_initial * ((t² + lr_batches²) / lr_batches²)^(-1/4)
                              * ((e² + lr_epochs²) / lr_epochs²)^(-1/4) * warmup(t),

    where warmup rises linearly from ``warmup_start`` to 1 in the first ``warmup_batches`` batches.
    ``cooldown``, a factor of ours, lowers the rate in the last epochs of a short training, where
    Eden's is still high: by ``cooldown ** (e - cooldown_epoch)`` after ``cooldown_epoch``.

    The interface is that of SpeechBrain's ``NoamScheduler``: call it once after each step of the
    optimizer, with the number of batches that the step is worth. ``lr_initial`` is the base rate of
    the first parameter group; the other groups keep the ratio to it that they had when the schedule
    first saw them. The ratio is kept in the group (``"lr_ratio"``), and so in the optimizer's
    checkpoint; batch and epoch are in this one's own.

    Args:
        lr_initial: base learning rate of the first parameter group.
        lr_batches: batches after which the rate starts to fall noticeably.
        lr_epochs: epochs after which the rate starts to fall noticeably.
        warmup_batches: length of the warm-up; 0 for none.
        warmup_start: share of the rate at batch 0, in [0, 1].
        cooldown_epoch: epochs after which each further one multiplies the rate by ``cooldown``;
            below 0, as of a training that is shorter than its cooldown, is 0; None for never.
        cooldown: in (0, 1].

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)
        >>> eden = Eden(lr_initial=1.0, lr_batches=100, lr_epochs=4, warmup_batches=4)
        >>> eden.apply(opt)  # before the first batch
        (1.0, 0.5)
        >>> old_lr, new_lr = eden(opt)  # after each batch
        >>> eden.set_epoch(1)  # after each epoch
    """

    def __init__(
        self,
        lr_initial: float,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500,
        warmup_start: float = 0.5,
        cooldown_epoch: float | None = None,
        cooldown: float = 1.0,
    ) -> None:
        for name, value in (
            ("lr_initial", lr_initial),
            ("lr_batches", lr_batches),
            ("lr_epochs", lr_epochs),
        ):
            positive_or_infinite(value, f"Eden: {name}")
        number(0, math.inf)(warmup_batches, "Eden: warmup_batches")
        number(0, 1)(warmup_start, "Eden: warmup_start")
        if cooldown_epoch is None:
            cooldown_epoch = math.inf
        if cooldown_epoch != math.inf:  # a recipe's "all but two" may be below 0
            number(-math.inf, math.inf)(cooldown_epoch, "Eden: cooldown_epoch")
        number(1e-6, 1)(cooldown, "Eden: cooldown")
        self.lr_initial = lr_initial
        self.lr_batches = lr_batches
        self.lr_epochs = lr_epochs
        self.warmup_batches = warmup_batches
        self.warmup_start = warmup_start
        self.cooldown_epoch = max(0.0, cooldown_epoch)
        self.cooldown = cooldown
        self.batch: float = 0
        self.epoch: float = 0

    def __call__(self, opt: Optimizer, batches: float = 1) -> tuple[float, float]:
        """Count the batches of one more step and set the rate of every parameter group.

        Args:
            opt: the optimizer to steer.
            batches: of the step; see :mod:`todm_sb.training.pace`.

        Returns:
            The rate of the first group before and after the call.
        """
        self.batch += batches
        return self.apply(opt)

    def apply(self, opt: Optimizer) -> tuple[float, float]:
        """Set the rates for the present batch and epoch; the counts stay as they are.

        Call it before the first batch, which would else run at the optimizer's own rate.

        Args:
            opt: the optimizer to steer.

        Returns:
            The rate of the first group before and after the call.
        """
        old_lr = float(opt.param_groups[0]["lr"])  # it may be a tensor
        new_lr = self.lr_initial * self.factor()
        for group in opt.param_groups:
            if "lr_ratio" in group:
                continue
            if not old_lr > 0:
                raise ConfigError(f"Eden: the optimizer's lr must be positive, not {old_lr}")
            group["lr_ratio"] = float(group["lr"]) / old_lr
        for group in opt.param_groups:
            group["lr"] = new_lr * group["lr_ratio"]
        return old_lr, new_lr

    def set_epoch(self, epoch: float) -> None:
        """Tell how many epochs are done; a fraction is welcome where epochs are long.

        Args:
            epoch: epochs done since the start of training.

        Raises:
            ConfigError: ``epoch`` is negative.
        """
        if not epoch >= 0:
            raise ConfigError(f"Eden: epoch must not be negative, not {epoch}")
        self.epoch = epoch

    def factor(self) -> float:
        """Share of ``lr_initial`` at the present batch and epoch, in [0, 1]."""
        by_batch = (1 + (self.batch / self.lr_batches) ** 2) ** -0.25
        by_epoch = (1 + (self.epoch / self.lr_epochs) ** 2) ** -0.25
        warmup = 1.0
        if self.batch < self.warmup_batches:
            done = self.batch / self.warmup_batches
            warmup = self.warmup_start + (1 - self.warmup_start) * done
        cooldown = self.cooldown ** max(0.0, self.epoch - self.cooldown_epoch)
        return by_batch * by_epoch * warmup * cooldown

    @checkpoints.mark_as_saver
    def save(self, path: str | os.PathLike) -> None:
        """Write batch and epoch to ``path``."""
        torch.save({"batch": self.batch, "epoch": self.epoch}, path)

    @checkpoints.mark_as_loader
    def load(self, path: str | os.PathLike, end_of_epoch: bool = False) -> None:
        """Read batch and epoch from ``path``."""
        del end_of_epoch  # the counts tell all
        data = torch.load(path, weights_only=True)
        self.batch, self.epoch = data["batch"], data["epoch"]
