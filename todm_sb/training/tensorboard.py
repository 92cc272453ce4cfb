"""SpeechBrain's logger for TensorBoard, which leaves no file before there is something to log."""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from typing import Any

from speechbrain.utils import train_logger
from speechbrain.utils.distributed import if_main_process

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.extras import installing


class TensorboardLogger(train_logger.TensorboardLogger):
    """As SpeechBrain's, whose events begin a file as soon as a recipe is loaded: when it is loaded
    to export a run, too, or when a check stops it. And figures are drawn at their epoch: those that
    begin later, and those of a run that was resumed.

    Args:
        save_dir: folder of the events.

    Raises:
        ConfigError: if TensorBoard is not installed.
    """

    def __init__(self, save_dir: str) -> None:
        if find_spec("tensorboard") is None:
            raise ConfigError(f"TensorBoard is not installed: {installing('train')}")
        self.save_dir = save_dir
        self.global_step = {"train": {}, "valid": {}, "test": {}, "meta": 0}

    @cached_property
    def writer(self) -> Any:
        """The SummaryWriter of the first process, made on its first use; None in the others."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.save_dir) if if_main_process() else None

    def log_stats(
        self,
        stats_meta: dict[str, Any],
        train_stats: dict[str, Any] | None = None,
        valid_stats: dict[str, Any] | None = None,
        test_stats: dict[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        """As SpeechBrain's, of a number for each name.

        Args:
            stats_meta: figures by name, with ``epoch``, at which all are drawn.
            train_stats, valid_stats, test_stats: figures by name.
            verbose: is ignored.
        """
        before, told = stats_meta["epoch"] - 1, (train_stats, valid_stats, test_stats)
        by_stage = zip(("train", "valid", "test"), told, strict=True)
        steps = {stage: dict.fromkeys(stats or {}, before) for stage, stats in by_stage}
        self.global_step = {**steps, "meta": before}
        super().log_stats(stats_meta, *told, verbose)
