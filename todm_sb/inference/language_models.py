"""Language models from files: n-grams in ARPA form, and SpeechBrain's folders of RNN models."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer
from torch import nn

from todm_sb.decoders.language_model import ShallowFusion
from todm_sb.decoders.ngram import NGram, read_arpa
from todm_sb.utils.errors import ConfigError, recipe_errors

# SpeechBrain's recipes name the network so; the first that is there is taken.
KEYS = ("lm_model", "lm", "model")
YAML, CHECKPOINTS = "hyperparams.yaml", "save"
# What a training makes folders and files with; it is not made.
UNUSED: dict[str, Any] = {"checkpointer": None, "train_logger": None}


def load_language_model(path: str | Path, trusted: bool = False) -> NGram | nn.Module:
    """Loads a language model.

    Args:
        path: an ARPA file; or a folder whose ``hyperparams.yaml`` has an RNN language model, such
            as :class:`speechbrain.lobes.models.RNNLM.RNNLM`, as ``lm_model`` (or ``lm``,
            ``model``): the ``output_folder`` of SpeechBrain's recipe, or a folder of a network
            that a ``pretrainer`` names, with its weights, such as ``lm.ckpt``.
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


def rnn_fusion(lm: nn.Module, weight: float, vocab_size: int) -> ShallowFusion:
    """A language model beside a network.

    Args:
        lm: see :class:`todm_sb.decoders.language_model.ShallowFusion`.
        weight: of its log-probabilities.
        vocab_size: labels of the network, of which 0 is blank.

    Raises:
        ConfigError: if it is not called as such a model is, or is of other labels.
    """
    fusion = ShallowFusion(lm, weight, blank=0)
    device = next((p.device for p in lm.parameters()), None)
    try:
        with torch.no_grad():
            scores, state = fusion.predict(torch.zeros(1, dtype=torch.long, device=device))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{type(lm).__name__} is no RNN language model as SpeechBrain's RNNLM: {reason}"
        ) from error
    if not state:
        raise ConfigError(f"{type(lm).__name__} keeps no state from label to label: it is no RNN")
    if not all(bool(p.isfinite().all()) for p in lm.parameters()):
        raise ConfigError("the language model has weights that are no finite numbers")
    if scores.shape[-1] != vocab_size:
        raise ConfigError(
            f"the language model has {scores.shape[-1]} labels, the network {vocab_size}: train it "
            "on the pieces of the network's tokenizer"
        )
    return fusion


def _from_folder(folder: Path) -> nn.Module:
    with recipe_errors(folder / YAML):
        with (folder / YAML).open(encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, UNUSED, overrides_must_match=False)
        key = next((key for key in KEYS if isinstance(hparams.get(key), nn.Module)), None)
        if key is None:
            raise ConfigError(f"it has no network named {', '.join(KEYS)}")
        model = hparams[key]
        weights = _weights(folder, hparams.get("pretrainer"), key, model)
        # Pretrainers let pass what does not fit.
        model.load_state_dict(_tensors(weights))
    # SpeechBrain's recipe trains without.
    model.return_hidden = True
    return model.eval()


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """What a file of weights holds, and no code.

    Raises:
        ConfigError: if it is damaged, or holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, KeyError, OSError, RuntimeError, ValueError, UnpicklingError) as error:
        raise ConfigError(f"{path.name} is damaged, or holds more than weights") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path.name} holds {type(found).__name__}, not weights by name")
    return found


def _weights(folder: Path, pretrainer: Any, key: str, model: nn.Module) -> Path:
    """The file of a network's weights: what a pretrainer would load, but from this folder, or of
    the checkpoint with the lowest loss."""
    for name, loadable in getattr(pretrainer, "loadables", {}).items():
        if loadable is model:
            path = folder / str(pretrainer.paths.get(name, f"{name}.ckpt")).rpartition("/")[2]
            if not path.is_file():
                raise ConfigError(f"{path.name}, the weights of {key}, is not beside it")
            return path
    if (folder / CHECKPOINTS).is_dir():
        found = Checkpointer(folder / CHECKPOINTS)
        best = found.find_checkpoint(min_key="loss") or found.find_checkpoint()
        if best is not None and key in best.paramfiles:
            return best.paramfiles[key]
    raise ConfigError(
        f"no pretrainer loads {key}, and no checkpoint in {CHECKPOINTS} beside it has its weights"
    )
