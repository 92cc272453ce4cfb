"""``todm-sb export``: from a training run to a folder that is deployed.

todm-sb export results/mini/1234 exported/all                     # the whole family
todm-sb export results/mini/1234 exported/min --subnet min        # one subnet
todm-sb export results/mini/1234 exported/0.9M --budget 0.9M      # of what todm-sb search found

The run is trusted: its hyperparams.yaml can run code.
"""

from __future__ import annotations

import argparse
import json
import sys

from todm_sb.cli.main import OK
from todm_sb.export.run import FORMATS, SUPERNET, export_run
from todm_sb.search.budget import COSTS
from todm_sb.utils.arguments import check_given_with, path
from todm_sb.utils.errors import ConfigError

ABOUT = ("language", "license", "dataset")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``export``."""
    parser.add_argument("run_folder", type=path, help="output_folder of train.py")
    parser.add_argument("target", type=path, help="folder to write")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--subnet",
        default=SUPERNET,
        help="max, min, one of the YAML's named_subnets, JSON of a config, or supernet (default)",
    )
    choice.add_argument("--budget", help="the best subnet found by todm-sb search for it, e.g. 5M")
    parser.add_argument("--cost", choices=COSTS, help="what the budget is of; default: params")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="bundle",
        help="bundle, safe to load from anybody (default); speechbrain's from_hparams folder; onnx "
        "for onnxruntime and sherpa-onnx, also in 8 bits; web for todm-sb serve, all of the "
        "recorded subnets unless one is chosen",
    )
    parser.add_argument(
        "--causal",
        action="store_true",
        help="of a dual-mode network, what streaming needs and no more; with --budget, of what "
        "todm-sb search --causal found",
    )
    parser.add_argument(
        "--for-training",
        action="store_true",
        help="of a bundle: keep what only training needs, CTC head and simple joiner, for "
        "--init_from of another training",
    )
    card = parser.add_argument_group("model card (README.md)", "in place of the run's key card")
    card.add_argument("--language", help="of the speech, as a code: en")
    card.add_argument("--license", help="as the Hugging Face Hub names it: cc-by-4.0")
    card.add_argument("--dataset", help="name of the corpus that was trained on")
    parser.add_argument("--study", help="with --budget, the study of todm-sb search that found it")
    parser.add_argument("--json", action="store_true", help="print an object")


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder and says how large the network is.

    Returns:
        The exit code.

    Raises:
        ConfigError: if the run, the search, the subnet or a causal form is not there, or another
            form than a bundle is to be for training, or options do not fit together.
    """
    if arguments.for_training and arguments.format != "bundle":
        raise ConfigError("--for-training is of bundles: leave it out, or --format")
    check_given_with(arguments, "--budget COST", "--cost", "--study")
    print(f"loading {arguments.run_folder}", file=sys.stderr)
    params = export_run(
        arguments.run_folder,
        arguments.target,
        arguments.subnet,
        arguments.budget,
        arguments.cost or "params",
        arguments.format,
        arguments.causal,
        arguments.study,
        arguments.for_training,
        {key: value for key in ABOUT if (value := getattr(arguments, key)) is not None},
    )
    if arguments.json:
        print(json.dumps({"folder": str(arguments.target), "params": params}))
    else:
        print(f"{arguments.target}: {params:,} parameters")
    return OK
