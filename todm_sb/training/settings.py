"""What a recipe's plain settings can be, and what depends on what: checked before the first step.

Settings that are arguments of a class (``objective``, ``model``, ``lr_annealing``) are checked by
it; :func:`check_parts` tells what of them does not go together.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.utils.run_opts import RunOptions
from torch import nn

from todm_sb.dataio.reading import LETTER_CASES
from todm_sb.dataio.split import own_tests
from todm_sb.dataio.tokenizer import NORMALIZATIONS, TYPES
from todm_sb.nnet.encoders import check_space
from todm_sb.nnet.features import (
    FBANK_CHECKS,
    FBANK_OPTION_CHECKS,
    SpeechFeatures,
    check_hop,
    check_window,
    empty_filters,
    make_fbank,
)
from todm_sb.nnet.hop import hop_of
from todm_sb.optim import ScaledAdam
from todm_sb.space import SUBNET_NAME, SearchSpace
from todm_sb.training.augmentation import check_augmentation
from todm_sb.training.evaluation import own_subnets
from todm_sb.training.pace import AUTO, pace_of
from todm_sb.training.recipe import TAGGED, Recipe, dump
from todm_sb.training.searcher import searcher_of
from todm_sb.utils.devices import usable_device
from todm_sb.utils.errors import ConfigError, quoted, recipe_errors
from todm_sb.utils.schema import (
    Check,
    anything,
    either,
    flag,
    integer,
    mapping,
    nullable,
    number,
    one_of,
    positive,
    positive_or_infinite,
    sequence,
    table,
    text,
)

# How features are normalised; SpeechBrain's batch depends on what an utterance is batched with.
NORM_TYPES = ("global", "sentence")

_SEED = integer(0, 2**32 - 1)  # NumPy's
_COUNT = integer(1, 10**9)
_PLACE = text(r"(?s).+", "the name of a file or folder")
# Part of a file's name.
_SPLIT = text(r"(?!\.\.?$)[^/\\\0\n]{1,200}", "the name of a data set, with no / in it")
_SPLITS = sequence(_SPLIT, 0, 1000)
_PRECISION = one_of("fp32", "bf16", "fp16")


def _made(value: Any, where: str) -> None:
    """An object, which only a tag makes."""
    if value is not TAGGED:
        raise ConfigError(f"{where} must be an object (!new:, !name: or !ref), not {quoted(value)}")


def _manifests(value: Any, where: str) -> None:
    """The name of a manifest, or some; each becomes the name of a test set."""
    sequence(_PLACE, 0, 1000)([value] if isinstance(value, str) else value, where)
    for csv in own_tests({"test_csvs": value}):
        _SPLIT(Path(csv).stem, f"{where}: the name of {quoted(csv)}")


def _accumulation(value: Any, where: str) -> None:
    """``auto``, or so many batches."""
    if value != AUTO and (type(value) is not int or not 1 <= value <= 10**6):
        raise ConfigError(
            f"{where} must be {AUTO} or an integer in 1..1000000, not {quoted(value)}"
        )


# What train.py and the training loop cannot do without; the second half is of objects.
REQUIRED: dict[str, Check] = {
    "seed": _SEED,
    "output_folder": _PLACE,
    "manifests": _PLACE,
    "train_csv": _PLACE,
    "valid_csv": _PLACE,
    "test_splits": _SPLITS,
    "max_duration": positive_or_infinite,
    "strict": flag,
    "sample_rate": FBANK_CHECKS["sample_rate"],
    "tokenizer_folder": _PLACE,
    "tokenizer_type": one_of(*TYPES),
    "vocab_size": integer(2, 1 << 20),
    "max_batch_seconds": positive,
    "micro_batches": _COUNT,
    "num_workers": integer(0, 1024),
    "avg_checkpoints": integer(1, 1000),
    "n_random": integer(0, 1000),
    "sandwich_warmup": integer(0, 10**9),
    "named_subnets": nullable(table(SUBNET_NAME, anything, 1000)),
    "max_symbols": integer(1, 100),
    "beam_size": integer(1, 1000),
    "prepare": sequence(_made, 0, 1000),
    "modules": table(text(r"\w+"), _made, 1000),
    **dict.fromkeys(("space", "model", "objective", "normalize", "features"), _made),
    **dict.fromkeys(
        ("opt_class", "lr_annealing", "epoch_counter", "checkpointer", "train_logger"), _made
    ),
}

# What the model card of an export tells; see docs/deployment.md.
_LANGUAGE = text(r"[a-z]{2,3}|multilingual", "a language code such as en, or multilingual")
CARD = mapping(
    {},
    {
        "language": nullable(either(sequence(_LANGUAGE, 1, 1000), _LANGUAGE)),
        "license": nullable(text(r"[a-z0-9][a-z0-9.+-]*", "a licence of the Hub, e.g. cc-by-4.0")),
        "dataset": nullable(text(r"[^\r\n|]{1,200}", "the name of a data set")),
    },
)

# What the recipes have besides, and the options of SpeechBrain that a recipe may have, too.
OPTIONAL: dict[str, Check] = {
    "save_folder": _PLACE,
    "data_folder": nullable(_PLACE),
    "test_csvs": nullable(_manifests),
    "text_column": nullable(_PLACE),
    "text_normalization": one_of(*NORMALIZATIONS),
    **dict.fromkeys(("resample", "mixdown"), flag),
    **dict.fromkeys(("train_splits", "dev_splits"), sequence(_SPLIT, 1, 1000)),
    "noise_folder": nullable(_PLACE),
    "corpus_seed": _SEED,
    **dict.fromkeys(("n_train", "n_dev", "n_test"), _COUNT),
    "train_hours": positive,
    "letter_case": one_of(*LETTER_CASES),
    "held_out_speaker": nullable(_SPLIT),
    "ascending_epochs": integer(0, 10**6),
    "augment_after": integer(0, 10**9),
    "mask_after": nullable(integer(0, 10**9)),
    "uniform_share": number(0, 1),
    "searcher": anything,
    # Where training begins; see todm_sb.training.adaptation.
    "init_from": nullable(_PLACE),
    "init_subnet": anything,
    "card": nullable(CARD),
    **FBANK_CHECKS,
    **FBANK_OPTION_CHECKS,
    "norm_type": one_of(*NORM_TYPES),
    "number_of_epochs": _COUNT,
    "n_layers": integer(1, 128),
    "ffn_dim": integer(1, 65536),
    "lr": positive,
    "reference_batch_seconds": nullable(positive),
    "grad_accumulation_factor": _accumulation,
    "precision": _PRECISION,
    "eval_precision": _PRECISION,
    "gradient_sums": one_of("fp32", "bf16"),
    "memory_scan": flag,
    "max_grad_norm": positive_or_infinite,
    "nonfinite_patience": integer(0, 10**9),
    "average_every": nullable(_COUNT),
    "ckpt_interval_minutes": number(0, 1e9),
    "ckpt_interval_steps": integer(0, 10**9),
    "optimizer_step_limit": nullable(_COUNT),
    "debug_batches": _COUNT,
    "debug_epochs": integer(0, 10**9),
}

# Options of SpeechBrain's that would fail, or change nothing.
NOT_USED = {
    "data_parallel_backend": "start a process for each GPU, torchrun --nproc_per_node=N",
    **dict.fromkeys(
        ("jit", "jit_module_keys", "compile", "compile_module_keys"),
        "the subnets of a step are no one graph",
    ),
}

# Of these, what counts by the recipe's references alone; the second, if it has a searcher.
BY_REFERENCE = ("train_splits", "dev_splits")
OF_SEARCHER = ("beam_size", "max_symbols")


def load_checked(recipe: Recipe, options: RunOptions | None = None) -> dict[str, Any]:
    """The hparams of a recipe whose settings make sense.

    Args:
        recipe: with its overrides.
        options: of SpeechBrain, as the command line has them.

    Raises:
        ConfigError: if a setting does not, in one line; nothing has been written then.
    """
    options = options or RunOptions()
    given = {name: getattr(options, name) for name in options.overridden_args}
    with recipe_errors(recipe.file):
        check_settings({**recipe.settings(), **given})
    if options.device is not None and "LOCAL_RANK" not in os.environ:
        usable_device(options.device)
    hparams = recipe.load()
    with recipe_errors(recipe.file):
        chosen = {**options.as_dict(), **hparams, **given}
        _check_options(chosen)
        check_parts(hparams, chosen["max_grad_norm"])
        pace_of(hparams, chosen["grad_accumulation_factor"], 1)
        _check_use(recipe, hparams)
    return hparams


def _check_options(chosen: Mapping[str, Any]) -> None:
    """Refuses options of SpeechBrain that this training has no use for."""
    for name, mend in NOT_USED.items():
        if chosen.get(name):
            raise ConfigError(f"{name} cannot be had: {mend}")
    if chosen["ckpt_interval_minutes"] > 0 and chosen["ckpt_interval_steps"] > 0:
        raise ConfigError(
            "ckpt_interval_minutes and ckpt_interval_steps are both above 0: set one of them to 0"
        )


def _check_use(recipe: Recipe, hparams: Mapping[str, Any]) -> None:
    """Refuses what the command line says for nothing."""
    text = dump(recipe.tree())
    for key in (*BY_REFERENCE, *(OF_SEARCHER if "searcher" in hparams else ())):
        if key in recipe.overrides and not re.search(rf"<{key}\b", text):
            raise ConfigError(f"{key} is given, but nothing here makes use of it: leave it out")
    if recipe.overrides.get("noise_augment") and hparams.get("noise_augment") is None:
        raise ConfigError("noise_augment is given, but no noise: give its --noise_folder, too")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Checks plain settings; those that are not known here are let through.

    Args:
        settings: of :meth:`todm_sb.training.recipe.Recipe.settings`.

    Raises:
        ConfigError: if one is missing, of the wrong kind, out of range, or does not go with
            another.
    """
    for key in REQUIRED:
        if key not in settings:
            raise ConfigError(f"key {key!r} is missing")
    for key, check in {**OPTIONAL, **REQUIRED}.items():
        if settings.get(key, TAGGED) is not TAGGED:
            check(settings[key], key)
    _check_features({key: x for key, x in settings.items() if x is not TAGGED})
    _check_subnets(settings)
    names = [*settings["test_splits"], *(Path(csv).stem for csv in own_tests(settings))]
    if len({name.casefold() for name in names}) < len(names):
        where = "test_splits names" if names == settings["test_splits"] else "test_csvs name"
        raise ConfigError(f"{where} a data set twice: {quoted(names)}")


def _check_features(settings: Mapping[str, Any]) -> None:
    if not settings.keys() >= FBANK_CHECKS.keys():
        return
    check_hop(settings)
    check_window(settings)
    options = {k: settings[k] for k in (*FBANK_CHECKS, *FBANK_OPTION_CHECKS) if k in settings}
    empty = empty_filters(make_fbank(**options))
    if empty:
        raise ConfigError(
            f"n_mels: {empty} of {settings['n_mels']} mel filters are so narrow that they hold no "
            "point of the spectrum: take fewer, or a larger n_fft"
        )


def _check_subnets(settings: Mapping[str, Any]) -> None:
    """Names of subnets are parts of files' names; the subnets are of the search space."""
    named, space = settings["named_subnets"] or {}, settings.get("search_space", TAGGED)
    names = ["max", "min"]
    for name in named:
        if name.casefold() in names:
            raise ConfigError(f"named_subnets: there is a {name!r} already: choose another name")
        if name.casefold().endswith("-causal"):
            raise ConfigError(
                f"named_subnets: {name!r} is how the causal mode of another is called: choose "
                "another name"
            )
        names.append(name.casefold())
    if space is not TAGGED:
        own_subnets(SearchSpace.from_dict(space), named)


def check_parts(hparams: Mapping[str, Any], max_grad_norm: float) -> None:
    """Checks that what was built goes together, and that the optimizer can be built.

    Args:
        hparams: a loaded recipe.
        max_grad_norm: that training will have.

    Raises:
        ConfigError: if it does not.
    """
    model, objective = hparams["model"], hparams["objective"]
    objective.check(model)
    searcher_of(hparams, model)
    check_space(hparams["space"], model.encoder)
    n_mels = getattr(hparams["features"].fbank, "options", hparams).get("n_mels")
    n_features = model.encoder.n_features
    if n_mels not in (None, n_features):
        raise ConfigError(f"n_mels is {n_mels}, but the network was built for {n_features}")
    n_labels = model.config["vocab_size"]
    if hparams["vocab_size"] != n_labels:
        raise ConfigError(
            f"vocab_size is {hparams['vocab_size']}, but the network was built for {n_labels}"
        )
    _check_hop(hparams["features"])
    _check_normalizer(hparams["features"].normalizer, trained=bool(hparams.get("init_from")))
    check_augmentation(hparams)
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.zeros_like(weight)
    try:
        optimizer = hparams["opt_class"]([weight])
        optimizer.step()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"opt_class: {error or type(error).__name__}") from error
    annealing = hparams["lr_annealing"]
    if not all(hasattr(annealing, name) for name in ("apply", "set_epoch", "batch")):
        raise ConfigError(
            f"lr_annealing cannot be {type(annealing).__name__}, which counts otherwise: give "
            "!new:todm_sb.optim.Eden, or what has its apply, set_epoch and batch"
        )
    annealing.apply(optimizer)
    if isinstance(optimizer, ScaledAdam) and np.isfinite(max_grad_norm):
        raise ConfigError(
            f"max_grad_norm is {max_grad_norm}, but ScaledAdam clips gradients itself: "
            "set max_grad_norm: .inf"
        )


def _check_hop(features: SpeechFeatures) -> None:
    """Lengths in frames are counted by the one, the frames made by the other."""
    options = getattr(features.fbank, "options", None)
    hop = hop_of(options) if options else features.hop
    if features.hop != hop or hop < 1:
        raise ConfigError(f"features: a hop of {features.hop} samples, but {hop} of its fbank")


def _check_normalizer(normalizer: Any, trained: bool) -> None:
    """Features depend on nothing that they are batched with, and have statistics."""
    kind = getattr(normalizer, "norm_type", NORM_TYPES[0])
    if kind not in NORM_TYPES:
        raise ConfigError(f"normalize: norm_type must be one of {NORM_TYPES}, not {quoted(kind)}")
    until = getattr(normalizer, "update_until_epoch", math.inf)
    if kind == "global" and until < 2 and not trained:
        raise ConfigError(
            f"normalize: update_until_epoch must be at least 2, not {until}: the statistics are "
            "those of the epochs before it"
        )
