#!/usr/bin/env python3
"""Cuts a subnet out of a trained supernet and writes it as a folder that loads anywhere.

python export.py results/mini/1234 exported/min --subnet min
python export.py results/mini/1234 exported/0.9M --budget 0.9M    # of what search.py found
python export.py results/mini/1234 exported/own --subnet '{"layers": [0, 3], "ffn_dims": [...]}'
python export.py results/mini/1234 exported/all --subnet supernet
"""

import argparse
from pathlib import Path

from todm_sb.arguments import path
from todm_sb.errors import one_line_errors
from todm_sb.export.run import export_run
from todm_sb.supernet.budget import COSTS


def main(
    run: Path,
    target: Path,
    subnet: str = "min",
    budget: str | None = None,
    cost: str = "params",
    causal: bool = False,
    study: str | None = None,
) -> None:
    """Writes the best weights of a run, cut down to a subnet, or to the best one for a budget."""
    n = export_run(run, target, subnet, budget, cost, "speechbrain", causal, study)
    print(f"{target}: {budget or subnet}, {n:,} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=path, help="output_folder of train.py")
    parser.add_argument("target", type=path, help="folder to write")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--subnet",
        default="min",
        help="max, min, one of the YAML's named_subnets, JSON of a config, or supernet for all",
    )
    choice.add_argument("--budget", help="the best subnet found by search.py for it, e.g. 5M")
    parser.add_argument(
        "--cost", choices=COSTS, default="params", help="what the budget is of; default: params"
    )
    parser.add_argument(
        "--causal", action="store_true", help="of a dual-mode network, what streaming needs alone"
    )
    parser.add_argument("--study", help="with --budget, the study of search.py that found it")
    with one_line_errors():
        main(**vars(parser.parse_args()))
