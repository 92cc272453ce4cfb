"""Models of the Hugging Face Hub, fetched into its cache, and what of that cache may be followed.

A place is a folder of this machine, or else a repository of the Hub: ``org/model``, or
``org/model@revision`` for a branch, a tag or a commit. The cache is the one of all programs
(``HF_HOME``); what is in it is used where the Hub cannot be reached, or must not be
(``HF_HUB_OFFLINE=1``). The token is that of ``hf auth login`` or ``HF_TOKEN``, unless one is given.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from todm_sb.utils.errors import ConfigError

logger = logging.getLogger(__name__)

# What an export leaves of a network, by its form; no export leaves files of two in one folder.
BUNDLE_FILES = ("bundle.json", "weights.safetensors", "tokenizer.model")
SPEECHBRAIN_FILES = ("hyperparams.yaml", "model.ckpt", "normalize.ckpt", "tokenizer.ckpt")
ONNX_FILES = ("features.onnx", "encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt")
FILES = (*BUNDLE_FILES, *SPEECHBRAIN_FILES, *ONNX_FILES)

# In the cache, a folder a commit.
SNAPSHOTS = "snapshots"

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}(@[^\s@]+)?", re.ASCII)


def model_folder(
    place: str | Path,
    files: Sequence[str] = FILES,
    *,
    savedir: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    offline: bool = False,
) -> Path:
    """The folder of a model; that of a repository of the Hub is fetched first, if need be.

    Args:
        place: a folder, or ``org/model`` or ``org/model@revision`` where there is no such folder.
        files: that are fetched, where the repository has them.
        savedir: in place of the Hub's cache, and laid out as it is: by repository and commit.
        revision: branch, tag or commit; the newest of the main branch when None.
        token: of the Hub; False for none at all.
        offline: take what is in the cache, and ask nobody.

    Returns:
        The folder in the cache, or else the place itself, whether or not anything is there.

    Raises:
        ConfigError: if the repository, the revision or all of the files are missing, the Hub cannot
            be reached and the cache has no copy, or a revision of a folder is asked for.
    """
    if not is_of_hub(place):
        if revision is not None:
            raise ConfigError(f"{place} is no model of the Hub: it has no revision {revision}")
        return Path(os.path.expanduser(place))
    name, _, named = _posix(place).partition("@")
    if revision and named:
        raise ConfigError(f"{place} names a revision already: leave out {revision}")
    revision = revision or named or None
    options = {"cache_dir": savedir, "local_files_only": offline, "token": token}
    with _one_line(name, revision):
        fetched = _fetch(name, revision=revision, allow_patterns=list(files), **options)
    if not any((fetched / file).exists() for file in files):
        raise ConfigError(f"{name} on the Hub holds none of {', '.join(files)}")
    logger.info("%s: commit %s", place, fetched.name)
    return fetched


def is_of_hub(place: str | Path) -> bool:
    """Whether a place is a repository of the Hub: named as one, and nothing here has that name."""
    here = os.path.lexists(os.path.expanduser(place))
    return not here and _REPOSITORY.fullmatch(_posix(place)) is not None


def is_onnx_folder(folder: Path) -> bool:
    """Whether a folder is for :class:`todm_sb.inference.OnnxASR`."""
    return (folder / "encoder.onnx").is_file()


def _posix(place: str | Path) -> str:
    return str(place).replace(os.sep, "/")


def cached_file(path: Path) -> Path:
    """What a link in a snapshot of the Hub's cache leads to; another path stays as it is.

    The cache keeps contents in ``<repository>/blobs``, which may be links into ``blobs`` beside the
    repositories, and ``<repository>/snapshots/<commit>`` links to them. No other link is followed,
    nor one whose folder of blobs is a link itself.

    Args:
        path: directly in its folder.

    Raises:
        ConfigError: if it is a link to anywhere else.
    """
    if not path.is_symlink():
        return path
    snapshot = path.parent.resolve()
    repository = snapshot.parent.parent
    blob = _target(snapshot / path.name)
    allowed = snapshot.parent.name == SNAPSHOTS and blob.parent == repository / "blobs"
    if allowed and not blob.parent.is_symlink():
        if not blob.is_symlink():
            return blob
        shared = _target(blob)
        store = repository.parent / "blobs"
        links = [shared, shared.parent, store]
        if shared.parent.parent == store and not any(link.is_symlink() for link in links):
            return shared
    raise ConfigError(f"{path.name} is a link, and not one of the Hub's cache: copy the file here")


def _target(link: Path) -> Path:
    """Where a link leads, by its text alone."""
    return Path(os.path.normpath(link.parent / os.readlink(link)))


def _fetch(name: str, **options: Any) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from tqdm.auto import tqdm

        from todm_sb.utils.progress import watched
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} is no folder here; for models of the Hub, pip install huggingface_hub"
        ) from error

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": not watched()})

    return Path(snapshot_download(name, tqdm_class=Bar, library_name="todm_sb", **options))


@contextmanager
def _one_line(name: str, revision: str | None) -> Iterator[None]:
    """Says in one line why a repository cannot be had."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of the Hub, of HTTP, of the disk
        raise ConfigError(_reason(name, revision, error)) from error


def _reason(name: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{name} is gated: ask for it at the Hub, and give your token as HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name} is no folder here, and no model on the Hub that you may see; if it is a "
            "private one, give your token as HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision} on the Hub"
    if isinstance(error, errors.LocalEntryNotFoundError):
        version = f" at {revision}" if revision else ""
        return (
            f"{name}{version} is no folder here, and neither the Hub nor a whole copy in its cache "
            "can be reached"
        )
    line = " ".join(str(error).split()) or type(error).__name__
    return f"{name} cannot be fetched from the Hub: {line[:300]}"
