"""Training that begins from a trained network: the keys ``init_from`` and ``init_subnet``.

What the source is made of, its tokenizer, features, normaliser and shapes, overrides the recipe. So
the run's ``hyperparams.yaml`` tells all of it, as of any run, and the source is needed no more once
there is a checkpoint: ``init.json`` keeps what it decided.
"""

from __future__ import annotations

import copy
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.dataloader import make_dataloader
from torch import Tensor

from todm_sb.dataio.pipeline import SpeechDataset, make_loader_kwargs
from todm_sb.dataio.tokenizer import tokenizer_path
from todm_sb.nnet.transducer import AUXILIARIES, Transducer
from todm_sb.space import DIMENSIONS
from todm_sb.supernet.importance import sort_by_importance
from todm_sb.training.decided import FREE, changes, decided_by, in_mode
from todm_sb.training.identity import differences, flat, network_of
from todm_sb.training.recipe import Recipe, is_placeholder, update, yaml_of
from todm_sb.training.sources import Source, plain, read_source
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.files import write_atomic
from todm_sb.utils.processes import on_first

logger = logging.getLogger(__name__)

RECORD = "init.json"
# Differences from the recipe that the log names.
SHOWN = 8
# Speech that the importance of units is measured on.
SPEECH_SECONDS = 300.0


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Args:
        recipe: with what the source decides.
        place: the source, as the user said it; None of a training that begins anew.
        subnet: of it, that alone is trained.
        decided: the overrides that come from the source.
        source: None where nothing is to be read: there is none, or the run has begun.
        changed: how the recipe was before; one line each.
    """

    recipe: Recipe
    place: str | None = None
    subnet: str | None = None
    decided: dict[str, Any] = field(default_factory=dict)
    source: Source | None = None
    changed: list[str] = field(default_factory=list)

    def check(self, hparams: Mapping[str, Any]) -> None:
        """Makes sure that the recipe took what the source decided.

        Args:
            hparams: of the recipe, loaded.

        Raises:
            ConfigError: if not: a recipe of another form can build something else.
        """
        if self.source is None:
            return
        theirs, ours = _shapes(self.source.model), _shapes(hparams["model"])
        theirs |= {**self.source.fbank, "norm_type": self.source.norm_type}
        ours |= getattr(hparams["features"].fbank, "options", {})
        ours |= {"norm_type": hparams["normalize"].norm_type}
        if found := differences(theirs, ours):
            raise ConfigError(
                f"init_from {self.place}: the recipe builds something else ({found[0]}): leave "
                "that to the source"
            )

    def put_tokenizer(self, hparams: Mapping[str, Any]) -> None:
        """Puts the source's tokenizer where the recipe's would be trained.

        Raises:
            ConfigError: if another one is there.
        """
        if self.source is None:
            return
        path, tokenizer = tokenizer_path(hparams), self.source.tokenizer
        if not path.exists():
            write_atomic(path, tokenizer)
        elif path.read_bytes() != tokenizer:
            raise ConfigError(
                f"{path} is not the tokenizer of {self.place}: give another --tokenizer_folder"
            )

    def begin(self, hparams: Mapping[str, Any], train: SpeechDataset) -> None:
        """Gives the network the source's weights, and the normaliser its statistics. A supernet
        that begins from a plain network has that one's units in the order of their importance.

        Every process must call this.

        Args:
            hparams: of the recipe, loaded.
            train: what is trained on, which the importance is measured on.
        """
        if self.place is None or self.source is None:
            return
        logger.warning("%s", self._summary())
        model, space = hparams["model"], hparams["space"]
        for part in load_weights(model, self.source.model):
            logger.warning("%s: %s is not there and begins untrained", self.place, part)
        if self.source.norm_type == "global":
            statistics = copy.deepcopy(self.source.statistics)
            hparams["normalize"]._load_statistics_dict(statistics)
            hparams["normalize"].to(_device_of(model))
        if self.source.space is None and space.size > 1:
            varying = [key for key, values in space.choices if len(values) > 1]
            sort_by_importance(model, speech_of(hparams, train), varying)
        record = {"init_from": self.place, "init_subnet": self.subnet, "settings": self.decided}
        path = Path(hparams["output_folder"]) / RECORD
        on_first(write_atomic, path, json.dumps(record, indent=1) + "\n")

    def _summary(self) -> str:
        more = f" and {len(self.changed) - SHOWN} more" if len(self.changed) > SHOWN else ""
        over = f"; it decides {', '.join(self.changed[:SHOWN])}{more}" if self.changed else ""
        return f"training begins from {self.place}{over}"


def start_of(recipe: Recipe) -> Start:
    """Where the training of a recipe begins.

    Args:
        recipe: with the command line's overrides; what these say against the source is an error,
            while the source wins over the file.

    Raises:
        ConfigError: if the source cannot be used or does not go with what was asked for, or the
            output folder holds a run that began from elsewhere.
    """
    settings = recipe.settings()
    place, subnet = settings.get("init_from"), settings.get("init_subnet")
    subnet = subnet if subnet is None or isinstance(subnet, str) else json.dumps(subnet)
    if place is None and subnet is not None:
        raise ConfigError("init_subnet is a subnet of init_from, which is not given")
    folder = settings.get("output_folder")
    if not isinstance(place, str) or not isinstance(folder, str):
        return Start(recipe)  # or a fault that the check of all settings tells
    decided = _recorded(Path(folder), settings.get("save_folder"), place, subnet)
    if decided is not None:
        return Start(_with(recipe, decided), place, subnet, decided)
    source = read_source(place, subnet)
    try:
        before = _plain(recipe)
        source = in_mode(source, before.get("model"))
        decided = decided_by(source, _given(recipe, before), before)
    except ConfigError as error:
        raise ConfigError(f"init_from {place}: {error}") from error
    changed = [f"{k} {quoted(new)} (was {quoted(old)})" for k, old, new in changes(before, decided)]
    return Start(_with(recipe, decided), place, subnet, decided, source, changed)


def _plain(recipe: Recipe) -> dict[str, Any]:
    return plain(yaml_of().load(recipe.text()))


def _given(recipe: Recipe, resolved: dict[str, Any]) -> dict[str, Any]:
    """The overrides of a recipe, and what follows from them by its references, such as the search
    space from ``n_layers``."""
    tree = Recipe(recipe.file).tree()
    needed = {k: v for k, v in recipe.overrides.items() if is_placeholder(tree.get(k))}
    given = _changed(_plain(Recipe(recipe.file, needed)), resolved)
    update(given, copy.deepcopy(dict(recipe.overrides)))
    return given


def _changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What one nested mapping has otherwise than another one."""
    found: dict[str, Any] = {}
    for key, new in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= {key: _changed(old, new)} if old != new else {}
        elif new != old:
            found[key] = new
    return found


def load_weights(model: Transducer, source: Transducer) -> list[str]:
    """Gives a network the weights of one of the same shape.

    Args:
        model: is changed; it may have other auxiliaries of training.
        source: stays as it is.

    Returns:
        The auxiliaries of the model that the source has not.
    """
    weights = source.state_dict()
    fresh = [part for part in AUXILIARIES if getattr(model, part) and not getattr(source, part)]
    own = model.state_dict()
    model.load_state_dict({k: weights.get(k, v) for k, v in own.items()})
    return fresh


def _recorded(
    folder: Path, save_folder: Any, place: str, subnet: str | None
) -> dict[str, Any] | None:
    """What the source decided when the run in a folder began; None where none has begun."""
    if _absolute(str(folder)) == _absolute(place):
        raise ConfigError(f"init_from {place} is the output_folder: give another --output_folder")
    places = [folder / "save", *([Path(save_folder)] if isinstance(save_folder, str) else [])]
    if not any(any(p.glob("CKPT*")) for p in places) and not any(folder.glob("results_*.json")):
        return None
    path = folder / RECORD
    found: dict[str, Any] = {}
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            began = [found["init_from"], found["init_subnet"]]
            decided = dict(found["settings"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read ({error}): put it back") from None
        if (_absolute(began[0]), began[1]) == (_absolute(place), subnet):
            return decided
    began_from = found.get("init_from", "no other network")
    raise ConfigError(
        f"{folder} holds a run that began from {began_from}: give another --output_folder, or the "
        "init_from of that run"
    )


def _absolute(place: str) -> str:
    return os.path.abspath(os.path.expanduser(place))


def _with(recipe: Recipe, decided: dict[str, Any]) -> Recipe:
    """The recipe with what the source decides, as far as the command line does not say otherwise:
    in a run that has begun it may, and what contradicts its checkpoints is refused later."""
    overrides = copy.deepcopy(dict(recipe.overrides))
    for over in (decided, recipe.overrides):
        update(overrides, copy.deepcopy(over))
    return Recipe(recipe.file, overrides)


def _shapes(model: Transducer) -> dict[str, Any]:
    """What the weights of a network depend on."""
    # Sizes by dimension can be said in two ways, for all layers or layer by layer.
    left_out = (*FREE, *AUXILIARIES.values(), *DIMENSIONS)
    found = flat("model", network_of(model))
    rest = {key: value for key, value in found.items() if key.split(".")[-1] not in left_out}
    # Through JSON, so that a tuple equals the list that it is stored as.
    return json.loads(json.dumps({**rest, **flat("model", dict(model.encoder.dimensions))}))


def _device_of(model: Transducer) -> torch.device:
    return next(model.parameters()).device


@torch.no_grad()
def speech_of(hparams: Mapping[str, Any], train: SpeechDataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Features of some minutes of speech, without augmentation, and their lengths, on the device of
    the network.

    Args:
        hparams: of a recipe, loaded.
        train: where they are from.
    """
    features, left = hparams["features"], SPEECH_SECONDS
    device = _device_of(hparams["model"])
    options = make_loader_kwargs(train, hparams["max_batch_seconds"], hparams["seed"])
    trained = features.training
    features.eval()
    for batch in make_dataloader(train, **options):
        if batch.id:
            yield features(*batch.to(device).sig)
            left -= float(batch.duration.sum())
        if left <= 0:
            break
    features.train(trained)
