"""Options of the subcommands that transcribe: which network, how it searches, how audio is cut."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from todm_sb.bundle.bundle import MANIFEST
from todm_sb.cli.cutting import add_cutting_arguments
from todm_sb.decoders.hotword_file import BOOST, LARGEST_BOOST, read_hotwords
from todm_sb.inference import SubnetASR
from todm_sb.inference.decoding import BEAM, LM_WEIGHT, Decoding
from todm_sb.inference.language_models import load_language_model
from todm_sb.search.budget import parse_budget
from todm_sb.utils.arguments import at_least, check_given_with, path, positive
from todm_sb.utils.devices import usable_device
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import is_onnx_folder, model_folder

# What tells a folder of a training run from a SpeechBrain folder.
RUN = "history.jsonl"


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every recogniser can be told."""
    group = parser.add_argument_group("search")
    group.add_argument(
        "--beam-size",
        type=at_least(1),
        metavar="N",
        help=f"hypotheses kept; 1 is greedy search (greedy, or {BEAM} where a beam is needed)",
    )
    group.add_argument(
        "--hotwords",
        type=path,
        metavar="FILE",
        help="phrases to prefer, one a line, with ' :2.5' after it for a boost of its own",
    )
    group.add_argument(
        "--hotwords-boost",
        type=float,
        metavar="X",
        help=f"of the others, in log-probability a word ({BOOST:g})",
    )
    group.add_argument(
        "--lm",
        type=path,
        metavar="FILE|FOLDER",
        help="language model: an n-gram model of words or of pieces in ARPA form (.gz too), or, "
        "with --trusted, SpeechBrain's folder of an RNN model",
    )
    group.add_argument("--lm-weight", type=positive, metavar="X", help=f"({LM_WEIGHT:g})")
    add_cutting_arguments(group)
    parser.add_argument("--device", help="of PyTorch, e.g. cpu (a GPU where there is one)")
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="load SpeechBrain's hyperparams.yaml, which can run any code, from a folder without "
        f"{MANIFEST}",
    )


def decoding_of(arguments: argparse.Namespace, nbest: int = 1) -> Decoding:
    """How the arguments want to search.

    Raises:
        ConfigError: if they do not fit together, or a list or model is not as it should be.
    """
    for option in ("--hotwords-boost", "--lm-weight"):
        value = getattr(arguments, option[2:].replace("-", "_"))
        if value is not None and not abs(value) <= LARGEST_BOOST:
            raise ConfigError(f"{option} {value:g} is no number up to {LARGEST_BOOST:g}")
    check_given_with(arguments, "--hotwords FILE", "--hotwords-boost")
    check_given_with(arguments, "--lm FILE|FOLDER", "--lm-weight")
    lm_weight = LM_WEIGHT if arguments.lm_weight is None else arguments.lm_weight
    decoding = Decoding(arguments.beam_size, nbest, lm_weight=lm_weight)
    if arguments.hotwords is not None:
        boost = BOOST if arguments.hotwords_boost is None else arguments.hotwords_boost
        decoding = replace(decoding, hotwords=read_hotwords(arguments.hotwords, boost))
    if arguments.lm is not None:
        decoding = replace(decoding, lm=load_language_model(arguments.lm, arguments.trusted))
    return decoding


def load(
    place: str | Path,
    subnet: str | None = None,
    max_params: str | None = None,
    max_latency: str | None = None,
    device: str | None = None,
    trusted: bool = False,
) -> SubnetASR:
    """A network for the command line.

    Args:
        place: folder of a bundle, or of what SpeechBrain's ``from_hparams`` loads, or a repository
            of the Hub with either.
        subnet: its name or JSON.
        max_params, max_latency: limits of a bundle's subnet, e.g. ``5M`` and ``80ms``.
        device: of PyTorch.
        trusted: load a YAML.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    folder = model_folder(place)
    run_opts = {"device": str(usable_device(device))} if device else None
    if (folder / MANIFEST).exists():
        return SubnetASR.from_bundle(
            folder,
            subnet,
            None if max_params is None else parse_budget(max_params, "params"),
            None if max_latency is None else 1e3 * parse_budget(max_latency, "latency"),
            run_opts,
        )
    if not folder.exists():
        raise ConfigError(f"{place} does not exist: name the folder of an export, or org/model")
    if (folder / RUN).is_file():
        raise ConfigError(
            f"{place} is a training run: todm-sb export {place} FOLDER, and name that"
        )
    if is_onnx_folder(folder):
        raise ConfigError(
            f"{place} holds ONNX models, which todm-sb transcribe runs, and no other command: "
            "export a bundle of the same run"
        )
    if not trusted:
        raise ConfigError(
            f"{place} holds no {MANIFEST}; if it is a SpeechBrain folder that you "
            "trust, add --trusted"
        )
    if (max_params, max_latency) != (None, None):
        raise ConfigError(f"{place} is no bundle: a limit has nothing to choose from")
    if subnet is not None:
        return SubnetASR.from_supernet(folder, subnet, run_opts=run_opts)
    return SubnetASR.from_hparams(folder, run_opts=run_opts)
