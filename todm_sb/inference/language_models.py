"""Language models from files: n-grams in ARPA form, and SpeechBrain's folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from torch import nn

from todm_sb.decoders.ngram import NGram, read_arpa
from todm_sb.utils.errors import ConfigError, recipe_errors

# SpeechBrain's recipes name the network so; the first that is there is taken.
KEYS = ("lm_model", "lm", "model")
YAML = "hyperparams.yaml"


def load_language_model(path: str | Path, trusted: bool = False) -> NGram | nn.Module:
    """Loads a language model.

    Args:
        path: an ARPA file; or a folder whose ``hyperparams.yaml`` has an RNN language model as
            ``lm_model`` (or ``lm``, ``model``), with ``return_hidden: True``, and a
            ``pretrainer`` that loads its weights from the folder.
        trusted: load a folder's YAML, which can run any code.

    Raises:
        ConfigError: if it is neither, or may not be loaded.
    """
    path = Path(path)
    if not path.is_dir():
        return read_arpa(path)
    if not (path / YAML).is_file():
        raise ConfigError(f"{path} holds no {YAML} of a language model")
    if not trusted:
        raise ConfigError(f"{path / YAML} can run any code; if you trust it, add --trusted")
    return _from_folder(path)


def _from_folder(folder: Path) -> nn.Module:
    with recipe_errors(folder / YAML):
        with (folder / YAML).open(encoding="utf-8") as file:
            hparams: dict[str, Any] = load_hyperpyyaml(file)
        model = next((hparams[key] for key in KEYS if key in hparams), None)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"it has no network named {', '.join(KEYS)}")
        if "pretrainer" not in hparams:
            raise ConfigError("it has no pretrainer, which loads the weights")
        pretrainer = hparams["pretrainer"]
        pretrainer.collect_files(default_source=str(folder))
        pretrainer.load_collected()
    if not getattr(model, "return_hidden", True):
        raise ConfigError(f"{folder / YAML}: the language model needs return_hidden: True")
    return model.eval()
