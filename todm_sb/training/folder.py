"""The folder of a run: it belongs to the run that filled it, and to one job at a time."""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import speechbrain as sb
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from speechbrain.utils.distributed import if_main_process

from todm_sb.dataio.tokenizer import tokenizer_path
from todm_sb.training import broken_audio, provenance
from todm_sb.training.identity import (
    TOKENIZER,
    differences,
    identity_of,
    read_identity,
    write_identity,
)
from todm_sb.training.recipe import RECIPE, Recipe
from todm_sb.training.runs import load_hparams
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.files import write_atomic
from todm_sb.utils.locks import NAME, FolderLock
from todm_sb.utils.processes import on_first

logger = logging.getLogger(__name__)

# SpeechBrain's first words in a run's recipe.
GENERATED = "# Generated "
# What training writes over; with neither the lock's file nor that beginning they are another's.
OVERWRITTEN = (RECIPE, "train.py")

# Without these keys a recipe is not of this package, and not to be loaded.
NEEDED = {"space", "model", "features", "normalize", "opt_class"}

# Differences that a message names.
SHOWN = 3


@contextmanager
def run_folder(
    hparams: dict[str, Any],
    recipe: Recipe,
    command: Sequence[str],
    test_only: bool = False,
) -> Iterator[Callable[[], None]]:
    """Holds the lock on a run's folder.

    Whose folder it is is checked before the first byte is written there. Of several processes the
    first checks, locks and writes for all.

    Args:
        hparams: the recipe, loaded.
        recipe: that they were loaded from.
        command: program and arguments.
        test_only: the run is there and only to be tested.

    Yields:
        What every process calls once all is checked and training begins. It binds the folder to
        its recipe and tokenizer, in ``hyperparams.yaml``, ``identity.json`` and
        ``provenance.json``; nothing, where there is only to be tested.

    Raises:
        ConfigError: if the folder is another run's, or of something else, or another process is
            training or testing in it, or there is nothing to test.
    """
    text = _resolved(recipe)

    def begin() -> None:
        if not test_only:
            on_first(_bind, hparams, text, command)
        log = Path(hparams["output_folder"]) / "log.txt"
        on_first(_log_to, log, kept)
        if not if_main_process():
            _log_broken_audio_to(log)

    # Of what is logged until then: a start that its data stops writes nothing over.
    kept = logging.handlers.MemoryHandler(1, flushOnClose=False)
    with ExitStack() as held:
        on_first(_take, held, hparams, test_only, kept)
        yield begin


def _take(held: ExitStack, hparams: dict[str, Any], test_only: bool, kept: logging.Handler) -> None:
    folder = Path(hparams["output_folder"])
    new = not _is_begun(folder, hparams)
    _refuse_other_run(folder, hparams, test_only)
    lock = held.enter_context(FolderLock(folder))
    if new:  # another may have begun meanwhile
        _refuse_other_run(folder, hparams, test_only)
    _set_up_logging(os.devnull)
    logging.getLogger().addHandler(kept)
    held.callback(logging.getLogger().removeHandler, kept)
    if lock.problem:
        logger.warning(lock.problem)


def _set_up_logging(path: str | Path) -> None:
    logging.getLogger("matplotlib").setLevel(logging.INFO)  # it tells each font that it finds
    handler = {"filename": str(path)}
    sb.utils.logger.setup_logging(
        sb.core.DEFAULT_LOG_CONFIG, {"handlers": {"file_handler": handler}}
    )


def _log_to(path: Path, kept: logging.handlers.MemoryHandler) -> None:
    """What was logged before goes to the file first."""
    _set_up_logging(path)
    (file,) = (x for x in logging.getLogger().handlers if isinstance(x, logging.FileHandler))
    kept.setTarget(file)
    kept.flush()


def _log_broken_audio_to(path: Path) -> None:
    """What the other processes have to tell that the first cannot: of the rest, errors alone."""
    logging.getLogger("todm_sb").setLevel(logging.ERROR)
    broken_audio.logger.setLevel(logging.WARNING)
    if path.exists():  # not on a node whose folder is another one
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s"))
        broken_audio.logger.addHandler(file)


def _bind(hparams: dict[str, Any], recipe: str, command: Sequence[str]) -> None:
    folder = Path(hparams["output_folder"])
    _refuse_other_run(folder, hparams, False)  # now that there is a tokenizer
    write_identity(folder, identity_of(hparams))
    # SpeechBrain would write the recipe in place, and leave half of it when the run is killed.
    write_atomic(folder / RECIPE, recipe)
    provenance.record(folder, command)


def _resolved(recipe: Recipe) -> str:
    """The recipe as SpeechBrain keeps it: references resolved, below where it came from; but paths
    can be found from any folder."""
    source, text = os.path.abspath(recipe.file), recipe.text(whole_paths=True)
    return f"{GENERATED}{date.today()} from:\n# {source}\n# yamllint disable\n{text}"


def _has_checkpoints(folder: Path, hparams: dict[str, Any]) -> bool:
    return any(any(place.glob("CKPT*")) for place in _places(folder, hparams))


def _places(folder: Path, hparams: dict[str, Any]) -> tuple[Path, Path]:
    """Where checkpoints are unless told otherwise, and where these settings have them."""
    return folder / "save", Path(hparams["checkpointer"].checkpoints_dir)


def _is_begun(folder: Path, hparams: dict[str, Any]) -> bool:
    """Whether the folder holds what another run must not mix with: checkpoints, or results."""
    return _has_checkpoints(folder, hparams) or any(folder.glob("results_*.json"))


def _refuse_other_run(folder: Path, hparams: dict[str, Any], test_only: bool) -> None:
    """Compares the settings with what the folder says, and writes nothing.

    Raises:
        ConfigError: see :func:`run_folder`.
    """
    if test_only and not _has_checkpoints(folder, hparams):
        raise ConfigError(f"{folder} holds no checkpoint to test: train first")
    if not _is_begun(folder, hparams):
        _refuse_other_files(folder)
        return
    ours = identity_of(hparams)
    found = differences(_identity_in(folder), ours)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ConfigError(
            f"{folder} holds a run of other settings ({', '.join(found[:SHOWN])}{more}): give "
            "another --output_folder, or the settings of that run"
        )
    theirs, own = _places(folder, hparams)
    if any(theirs.glob("CKPT*")) and not any(own.glob("CKPT*")):
        raise ConfigError(
            f"{own} holds no checkpoint, but {theirs} those of a run: give another "
            "--output_folder, or the --save_folder of that run"
        )
    if TOKENIZER not in ours:
        raise ConfigError(
            f"{tokenizer_path(hparams)} is gone, without which the checkpoints in {folder} mean "
            "nothing: put it back, or give another --output_folder"
        )


def _refuse_other_files(folder: Path) -> None:
    """Protects a folder that no run has written to."""
    found = [folder / name for name in OVERWRITTEN if (folder / name).exists()]
    if not found or (folder / NAME).exists():
        return
    recipe = folder / RECIPE
    begins = recipe.read_bytes()[: len(GENERATED)] if recipe.is_file() else None
    if begins not in (b"", GENERATED.encode()):
        raise ConfigError(f"{found[0]} is not of a run: give another --output_folder")


def _identity_in(folder: Path) -> dict[str, Any]:
    """What identifies the run in a folder; where ``identity.json`` is lost, by its recipe."""
    recipe = folder / RECIPE
    try:
        tree = YAML().load(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        tree = None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{folder} holds a run, but {RECIPE} is missing there or cannot be read: put it back, "
            "or give another --output_folder"
        )
    if not tree.keys() >= NEEDED:
        raise ConfigError(f"{recipe} is of another kind of run: give another --output_folder")
    recorded = read_identity(folder)
    return identity_of(load_hparams(folder)) if recorded is None else recorded
