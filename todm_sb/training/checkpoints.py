"""Checkpoints that survive whatever happens while they are written, and which of them is used."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from speechbrain.utils.checkpoints import METAFNAME, Checkpoint, Checkpointer, average_checkpoints
from speechbrain.utils.distributed import ddp_barrier, if_main_process, main_process_only
from torch import Tensor, nn

from todm_sb.utils.errors import CheckpointError, ConfigError
from todm_sb.utils.files import sha256_of

logger = logging.getLogger(__name__)

# Begins the name of a folder in which a checkpoint is still being written.
UNFINISHED = "unfinished-"
SUMS = "sha256.json"
# In what a checkpoint says of itself: its mean WER over what is measured, or that of max alone, as
# long as no other subnet is trained; and what its WER is of.
WER = "WER"
WER_OF_MAX = "WER of max"
WER_OF = "wer_of"
# The recoverable that holds the mean of an epoch's weights, where there is one, and the key of its
# file that has them.
AVERAGE = "average"
MEAN = "mean"


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer; a checkpoint is there whole or not at all, and proves it.

    A checkpoint is written to a folder that no one takes for one, with the SHA-256 of each file,
    and gets its name once all of it is on the disk. Folders that do not fit their sums are named in
    the log, and neither loaded nor deleted. All arguments are SpeechBrain's.
    """

    def __init__(self, checkpoints_dir: str | Path, *args: Any, **kwargs: Any) -> None:
        # SpeechBrain's makes its folder, also for one that only reads; here the first checkpoint
        # does.
        super().__init__(os.curdir, *args, **kwargs)
        self.checkpoints_dir = Path(checkpoints_dir)
        self._good: dict[Path, bool] = {}

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> Checkpoint | None:
        """As SpeechBrain's.

        Raises:
            CheckpointError: if it cannot be written; those written before are as they were.
        """
        self._clear_unfinished()
        try:
            saved = super().save_checkpoint(*args, **kwargs)
            if if_main_process():
                saved = self._finish(saved)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_failed_write(error):
                raise
            self._clear_unfinished()
            raise CheckpointError(self._write_failure(error)) from error
        ddp_barrier()
        return saved

    def save_and_keep_only(self, *args: Any, **kwargs: Any) -> None:
        """As SpeechBrain's, which adds a key to the list that is its default: after n calls it
        would sort the checkpoints n times."""
        kwargs["importance_keys"] = list(kwargs.get("importance_keys", ()))
        super().save_and_keep_only(*args, **kwargs)

    def list_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints that are whole; each folder is examined once.

        The first process examines them, for all: every process must call this.
        """
        return self._construct_checkpoint_objects(main_process_only(self._whole)())

    def _list_checkpoint_dirs(self) -> list[Path]:
        return super()._list_checkpoint_dirs() if self.checkpoints_dir.is_dir() else []

    def _whole(self) -> list[Path]:
        return [path for path in sorted(self._list_checkpoint_dirs()) if self._is_good(path)]

    def _new_checkpoint_dirpath(self) -> Path:
        return _unfinished(super()._new_checkpoint_dirpath())

    def _custom_checkpoint_dirpath(self, name: str) -> Path:
        return _unfinished(super()._custom_checkpoint_dirpath(name))

    def _finish(self, saved: Checkpoint) -> Checkpoint:
        """Writes the sums, sees all to the disk, and gives the folder its name."""
        files = sorted(path for path in saved.path.iterdir() if path.name != SUMS)
        sums = saved.path / SUMS
        sums.write_text(json.dumps(_sums(files), indent=1) + "\n", encoding="utf-8")
        for path in (*files, sums, saved.path):
            _sync(path)
        final = saved.path.with_name(saved.path.name.removeprefix(UNFINISHED))
        if final.exists():  # a name of the caller's own choice
            shutil.rmtree(final)
        os.replace(saved.path, final)
        _sync(final.parent)
        self._good[final] = True
        return Checkpoint(
            final, saved.meta, {k: final / v.name for k, v in saved.paramfiles.items()}
        )

    def _clear_unfinished(self) -> None:
        if if_main_process():
            for path in self.checkpoints_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(path)

    def _write_failure(self, error: Exception) -> str:
        places = (self.checkpoints_dir, *self.checkpoints_dir.absolute().parents)
        free = shutil.disk_usage(next(place for place in places if place.exists())).free
        whole = self._whole()  # the other processes do not come this way
        left = f"the newest whole one is {whole[-1].name}" if whole else "there is none before it"
        return (
            f"a checkpoint cannot be written to {self.checkpoints_dir}, which has "
            f"{free / 1e9:.1f} GB left ({error}): make room and start again with the same command; "
            f"{left}"
        )

    def _is_good(self, path: Path) -> bool:
        if path not in self._good:
            reason = broken(path)
            if reason is not None:
                logger.warning("checkpoint %s is broken and not used: %s", path, reason)
            self._good[path] = reason is None
        return self._good[path]


def keep(checkpointer: Checkpointer, optional: bool = False, **kept: Any) -> None:
    """Has checkpoints hold objects with methods ``save`` and ``load``.

    Args:
        checkpointer: of the run.
        optional: load checkpoints without them, too.
        kept: the objects, by name.
    """
    for name, x in kept.items():
        checkpointer.add_recoverable(name, x, type(x).load, type(x).save, optional_load=optional)


def broken(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is.

    Args:
        path: its folder.
    """
    try:
        meta = yaml.safe_load((path / METAFNAME).read_text(encoding="utf-8"))
        if not isinstance(meta, dict) or "unixtime" not in meta:
            return f"{METAFNAME} is not what it should be"
        expected = json.loads((path / SUMS).read_text(encoding="utf-8"))
        if not isinstance(expected, dict) or not expected:
            return f"{SUMS} is not what it should be"
        missing = [name for name in expected if not (path / name).exists()]
        if missing:
            return f"{missing[0]} is missing"
        found = _sums([path / name for name in expected])
        wrong = [name for name in expected if found[name] != expected[name]]
        return f"{wrong[0]} is not as it was written" if wrong else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        return str(error).replace("\n", " ")


def _is_failed_write(error: RuntimeError) -> bool:
    """Whether torch.save could not write; what it raises is no OSError and has no error number."""
    return any(sign in str(error) for sign in ("PytorchStreamWriter", "iostream error"))


def _unfinished(path: Path) -> Path:
    return path.with_name(UNFINISHED + path.name)


def _sums(files: list[Path]) -> dict[str, str]:
    """SHA-256 of files by name; hashing runs outside of Python's lock, hence in threads."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip((path.name for path in files), pool.map(sha256_of, files), strict=True))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def competes(wer_of: Mapping[str, str]) -> Callable[[Checkpoint], bool]:
    """Whether a checkpoint is chosen, or deleted, by its metric: if that is of the same thing.

    Args:
        wer_of: what the metrics of a run are of now; kept in a checkpoint as :data:`WER_OF`.
    """
    return lambda checkpoint: WER not in checkpoint.meta or _wer_of(checkpoint) == wer_of


def log_those_apart(checkpointer: Checkpointer, wer_of: Mapping[str, str]) -> None:
    """Names the checkpoints that do not compete; every process must call this."""
    apart = [c.path.name for c in checkpointer.list_checkpoints() if not competes(wer_of)(c)]
    if apart:
        logger.warning(
            "%s: the WER of %s is of another dev set, other subnets, another search or other means "
            "of weights: they are kept, and do not compete with those that are made now",
            checkpointer.checkpoints_dir,
            ", ".join(apart),
        )


def _wer_of(checkpoint: Checkpoint) -> dict[str, str]:
    """What its WER is of; nothing of one in the midst of an epoch, which has none."""
    return checkpoint.meta.get(WER_OF, {})


def recover_average(
    checkpointer: Checkpointer,
    model: nn.Module,
    n_average: int,
    max_key: str | None = None,
    min_key: str | None = None,
    wer_of: Mapping[str, str] | None = None,
) -> None:
    """Loads the best checkpoint, then into ``model`` the average of the ``n_average`` best, or of
    the means of their epochs' weights, where all have one; the newest checkpoint, where none has
    the metric, or the last epoch measured max alone.

    Only checkpoints whose metric is of the same thing compete: those that are like the newest one
    with ``wer_of``, or else like the newest one.

    Averaging epochs lowers the error rate (SpeechBrain's LibriSpeech recipes do the same).

    Args:
        checkpointer: of the run; ``model`` is its recoverable of that name.
        model: gets the averaged weights.
        n_average: number of checkpoints.
        max_key, min_key: metric that tells the best ones.
        wer_of: what the metric has to be of, or a part of it, as far as that is known.

    Raises:
        ConfigError: if there is no checkpoint.
    """
    key = max_key or min_key
    if key is not None and not _measured_at_last(checkpointer, key):
        # Where any has the metric, the warm-up was shorter then.
        max_key, min_key, key, n_average = None, None, None, 1
    measured = checkpointer.find_checkpoints(ckpt_predicate=lambda c: key is None or key in c.meta)
    alike = [c for c in measured if (wer_of or {}).items() <= _wer_of(c).items()]
    newest = (alike or measured or [None])[0]
    if key is not None and measured:
        if not alike:
            logger.warning(
                "%s: no WER was measured as it would be now: that of the newest checkpoint "
                "decides, and of those that were measured as it was",
                checkpointer.checkpoints_dir,
            )
        apart = sum(_wer_of(c) != _wer_of(newest) for c in measured)
        if apart:
            logger.warning(
                "%s: %d of %d checkpoints do not compete: their WER is of another dev set, other "
                "subnets, another search or other means of weights",
                checkpointer.checkpoints_dir,
                apart,
                len(measured),
            )
    found = checkpointer.find_checkpoints(
        max_key=max_key,
        min_key=min_key,
        max_num_checkpoints=n_average,
        ckpt_predicate=lambda c: key is None or _wer_of(c) == _wer_of(newest),
    )
    if not found:
        raise ConfigError(f"no checkpoint in {checkpointer.checkpoints_dir}: train first")
    checkpointer.load_checkpoint(found[0])
    model.load_state_dict(_average(found), strict=True)


def _average(checkpoints: list[Checkpoint]) -> dict[str, Tensor]:
    """Of the means of their epochs, where all have one, else of their weights."""
    if all(AVERAGE in checkpoint.paramfiles for checkpoint in checkpoints):
        return average_checkpoints(checkpoints, AVERAGE, parameter_loader=_mean_in)
    return average_checkpoints(checkpoints, recoverable_name="model")


def _mean_in(path: Path, **options: Any) -> dict[str, Tensor]:
    return torch.load(path, **options)[MEAN]


def _measured_at_last(checkpointer: Checkpointer, key: str) -> bool:
    """Whether the last epoch has the metric; it has not, if it measured max alone."""
    ended = checkpointer.find_checkpoints(
        ckpt_predicate=lambda c: not c.meta.keys().isdisjoint({key, WER_OF_MAX})
    )
    return bool(ended) and key in ended[0].meta
