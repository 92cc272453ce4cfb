"""What identifies a run: the settings without which its checkpoints mean something else.

They are the tokenizer, the features, the search space, the network and the optimizer, whose state
and options but the learning rate are in the checkpoints. All else may change from one start to the
next: learning rate, epochs, objective, dropout, augmentation, data, named subnets, test sets, the
seed. (With another seed the batches to come have another order; what was learnt stays true.)

``identity.json`` in the run's folder holds them, from the first training on. It has what
``hyperparams.yaml`` has not, the hash of the tokenizer, and can be read without building anything.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from todm_sb.dataio.tokenizer import tokenizer_path
from todm_sb.nnet.features import make_fbank
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.files import sha256_of, write_atomic

FILE = "identity.json"
# The key of the tokenizer's hash; it is not there as long as there is no tokenizer.
TOKENIZER = "tokenizer"

# What the letters of a transcript become before the tokenizer has them, or first of all in it.
TEXT_KEYS = ("letter_case", "text_normalization")
FEATURE_KEYS = tuple(inspect.signature(make_fbank).parameters)
# What an option of the optimizer may be to be compared.
PLAIN = (bool, int, float, str, list, tuple, type(None))


def identity_of(hparams: dict[str, Any]) -> dict[str, Any]:
    """What identifies the run of a recipe: plain values by their keys in the recipe.

    Names of classes are without their modules, which may move.

    Args:
        hparams: the recipe, loaded.
    """
    tokenizer = tokenizer_path(hparams)
    features, normalize, model = hparams["features"], hparams["normalize"], hparams["model"]
    given = getattr(hparams["opt_class"], "keywords", {})
    optimizer = getattr(hparams["opt_class"], "func", hparams["opt_class"])
    options = {k: v for k, v in {**_defaults(optimizer), **given}.items() if k != "lr"}
    values = {
        **({TOKENIZER: sha256_of(tokenizer)} if tokenizer.is_file() else {}),
        "tokenizer_type": hparams["tokenizer_type"],
        "vocab_size": hparams["vocab_size"],
        **{key: hparams[key] for key in TEXT_KEYS if key in hparams},
        **{key: hparams[key] for key in FEATURE_KEYS if key in hparams},
        # As they were built, where a part of the recipe says otherwise.
        **getattr(features.fbank, "options", {}),
        "features.fbank": type(features.fbank).__name__,
        "features.hop": features.hop,
        "normalize.norm_type": normalize.norm_type,
        "normalize.std_norm": getattr(normalize, "std_norm", None),
        **flat("search_space", hparams["space"].to_dict()),
        **flat("model", network_of(model)),
        "opt_class": getattr(optimizer, "__name__", type(optimizer).__name__),
        **{f"opt_class.{k}": v for k, v in options.items() if isinstance(v, PLAIN)},
    }
    # Through JSON, so that a tuple equals the list that it is stored as.
    return json.loads(json.dumps({k: v for k, v in values.items() if "dropout" not in k}))


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """How two runs differ; what one of them does not know of is left out.

    Args:
        theirs, ours: of :func:`identity_of`.
    """
    return [
        f"{key} was {quoted(theirs[key])}, is {quoted(value)}"
        for key, value in ours.items()
        if theirs.get(key, value) != value
    ]


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What a folder says of its run; None if it does not.

    Raises:
        ConfigError: if its ``identity.json`` cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        reason = "no object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ConfigError(
        f"{path} cannot be read ({reason}): delete it, and hyperparams.yaml counts instead"
    )


def write_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Writes ``identity.json``."""
    write_atomic(folder / FILE, json.dumps(identity, indent=1) + "\n")


def flat(prefix: str, value: Any) -> dict[str, Any]:
    """The leaves of nested mappings by their dotted names; of no mapping, itself by its prefix."""
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (flat(f"{prefix}.{key}", child) for key, child in value.items())
    return {key: child for part in parts for key, child in part.items()}


def network_of(model: Transducer) -> dict[str, Any]:
    """What a network was built with. A default counts as if it had been given, in the predictor
    as in the encoder, which keeps its own."""
    config: dict[str, Any] = model.config
    predictor = {**_defaults(type(model.predictor)), **config["predictor"]}
    return {**model.config, "predictor": predictor}


def _defaults(made_by: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(made_by).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
