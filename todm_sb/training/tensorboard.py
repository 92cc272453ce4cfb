"""SpeechBrain's logger for TensorBoard, which leaves no file before there is something to log."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from speechbrain.utils import train_logger
from speechbrain.utils.distributed import if_main_process


class TensorboardLogger(train_logger.TensorboardLogger):
    """As SpeechBrain's, whose events begin a file as soon as a recipe is loaded: when it is loaded
    to export a run, too, or when a check stops it.

    Args:
        save_dir: folder of the events.
    """

    def __init__(self, save_dir: str) -> None:
        self.save_dir = save_dir
        self.global_step = {"train": {}, "valid": {}, "test": {}, "meta": 0}

    @cached_property
    def writer(self) -> Any:
        """The SummaryWriter of the first process, made on its first use; None in the others."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.save_dir) if if_main_process() else None
