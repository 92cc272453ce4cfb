"""Packages that not every installation has, and what brings them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from todm_sb.utils.errors import ConfigError

# By the package that is imported: the extra of todm_sb, or none of what the base install has (a
# device that was installed with --no-deps lacks it).
EXTRAS = {
    "huggingface_hub": "",
    "hyperpyyaml": "",
    "ruamel": "",
    "safetensors": "",
    "sentencepiece": "",
    "soundfile": "",
    "speechbrain": "",
    "torch": "",
    "torchaudio": "",
    "tqdm": "",
    "markdown": "train",
    "matplotlib": "train",
    "tensorboard": "train",
    "optuna": "search",
    "sqlalchemy": "search",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "soxr": "onnx",
}


def installing(extra: str = "") -> str:
    """The command that installs what an extra of todm_sb brings, which itself is on no index.

    Args:
        extra: its name; none for what the base install has.
    """
    from importlib import metadata  # not on the way of every command

    try:
        lines = metadata.requires("todm_sb") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return f"pip install '{Path(__file__).parents[2]}{f'[{extra}]' if extra else ''}'"
    wanted = [line.partition(";")[0].strip() for line in lines if _extra_of(line) == extra]
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in wanted)])


def _extra_of(line: str) -> str:
    """Of a line of the package's metadata, such as ``optuna>=5; extra == "search"``."""
    found = re.search(r"extra == .(\w+)", line)
    return found[1] if found else ""


@contextmanager
def named_packages(what: str) -> Iterator[None]:
    """Says what to install where a package is missing.

    Args:
        what: needs it, e.g. ``todm-sb report``.

    Raises:
        ConfigError: in place of an ImportError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise ConfigError(f"{what} needs {package}: {installing(EXTRAS[package])}") from error
