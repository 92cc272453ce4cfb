#!/usr/bin/env python3
"""Cuts a subnet out of a trained supernet and writes it as a folder that loads anywhere.

python export.py results/mini/1234 exported/min --subnet min
python export.py results/mini/1234 exported/own --subnet '{"layers": [0, 3], "ffn_dims": [...]}'
python export.py results/mini/1234 exported/all --subnet supernet
"""

import argparse
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml

from todm_sb.checkpoints import recover_average
from todm_sb.errors import ConfigError, one_line_errors
from todm_sb.export.speechbrain import export_folder
from todm_sb.inference.asr import choose_subnet
from todm_sb.supernet import SubnetConfig, count_parameters, extract_subnet

FBANK_KEYS = (
    "sample_rate",
    "n_mels",
    "n_fft",
    "win_length",
    "hop_length",
    "fbank_kind",
    "snip_edges",
)


def main(run: Path, target: Path, subnet: str) -> None:
    """Writes the best weights of a run, cut down to a subnet."""
    hparams_file = run / "hyperparams.yaml"
    if not hparams_file.is_file():
        raise ConfigError(f"{run} is no output_folder of train.py: it holds no hyperparams.yaml")
    with hparams_file.open(encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, {"output_folder": str(run)})
    space, model = hparams["space"], hparams["model"]
    recover_average(hparams["checkpointer"], model, hparams["avg_checkpoints"], min_key="WER")
    if subnet == "supernet":
        config = space.max
    elif subnet in (hparams["named_subnets"] or {}):
        config = space.check(SubnetConfig.from_dict(hparams["named_subnets"][subnet]))
    else:
        config = choose_subnet(space, subnet)
    export_folder(
        target,
        model if subnet == "supernet" else extract_subnet(model, config),
        hparams["normalize"],
        next(Path(hparams["tokenizer_folder"]).glob("*.model")),
        {key: hparams[key] for key in FBANK_KEYS if key in hparams},
        hparams["features"].hop,
        hparams["max_symbols"],
        space if subnet == "supernet" else None,
    )
    print(f"{target}: {subnet}, {count_parameters(model, config):,} parameters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="output_folder of train.py")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument(
        "--subnet",
        default="min",
        help="max, min, one of the YAML's named_subnets, JSON of a config, or supernet for all",
    )
    arguments = parser.parse_args()
    with one_line_errors():
        main(arguments.run, arguments.target, arguments.subnet)
