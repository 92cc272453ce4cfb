"""Packages that not every installation has, and what brings them."""

from __future__ import annotations

from todm_sb.utils.errors import ConfigError

# By the package that is imported: the extra of todm_sb, or none of what the base install has (a
# device that was installed with --no-deps lacks it).
EXTRAS = {
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
    "plotly": "search",
    "sqlalchemy": "search",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "soxr": "onnx",
}


def missing_package(error: ModuleNotFoundError, what: str) -> ConfigError | None:
    """What to say of a package that is not installed; None of a module that no install brings.

    Args:
        error: of its import.
        what: needs it, e.g. ``todm-sb report``.
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    wanted = f"'todm_sb[{extra}]'" if extra else "todm_sb"
    return ConfigError(f"{what} needs {package}: pip install {wanted}")
