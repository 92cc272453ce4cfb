"""Packages that not every installation has, and what brings them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
        extra = EXTRAS[package]
        wanted = f"'todm_sb[{extra}]'" if extra else "todm_sb"
        raise ConfigError(f"{what} needs {package}: pip install {wanted}") from error
