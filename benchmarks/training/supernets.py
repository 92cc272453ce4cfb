"""Supernets of other encoders or search spaces beside a recipe's own: cost and error rates.

    python supernets.py ../../recipes/LibriSpeech/todm/hparams/mini.yaml \\
        --work=runs --variants conformer heads --seeds 1 2 3 --n_test=400 --number_of_epochs=4

Trains the recipe as it is (``own``) and each variant with each seed, by the recipe's ``train.py``,
one after the other, with what other overrides are given; what is finished is only read. Prints, for
each variant and each subnet that is named, the error rate over all seeds, its difference relative
to ``own``'s with a 95 % interval (paired bootstrap over seeds and over speakers; over utterances
where speakers are not told), and that of each seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from todm_sb.experiments.compare.results import Cost, compare_error_rates, read_tested
from todm_sb.experiments.compare.tables import difference_text
from todm_sb.space import SubnetConfig
from todm_sb.utils.tables import table_of

ROOT = Path(__file__).resolve().parents[2]
OWN = "own"
# Beside the recipe's: the narrowest layers with all their heads.
NARROW = "--named_subnets={narrow: {layers: [0, 2, 5], ffn_dims: [128, 128, 128]}}"
VARIANTS = {
    OWN: [NARROW],
    # SpeechBrain's Conformer with as many parameters in the max and in the min subnet (mini.yaml).
    "conformer": [
        "--model={encoder: {kind: conformer, d_model: 112, n_heads: 4, kernel_size: 15}}",
        "--search_space={ffn_dims: [72, 144, 216]}",
        "--named_subnets={wide: {layers: [0, 2, 5], ffn_dims: [216, 216, 216]}, "
        "deep: {layers: [0, 1, 2, 3, 4, 5], ffn_dims: [72, 72, 72, 72, 72, 72]}, "
        "narrow: {layers: [0, 2, 5], ffn_dims: [72, 72, 72]}}",
    ],
    # A third elastic dimension.
    "heads": ["--search_space={n_heads: [2, 4, 8]}", NARROW],
}


def run(recipe: Path, folder: Path, arguments: list[str]) -> None:
    """Trains and tests, unless that is finished."""
    if any(folder.glob("results_*.json")):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "train.py", str(recipe), f"--output_folder={folder}", *arguments]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        if subprocess.run(command, cwd=recipe.parents[1], stdout=log, stderr=log).returncode:
            raise SystemExit(f"{folder.name} failed: see {log.name}")


def results(folder: Path, split: str) -> dict[str, dict[str, Any]]:
    """What a run found of its subnets, by their names."""
    found = json.loads((folder / f"results_{split}.json").read_text())
    return {result["subnet"]: result for result in found}


def row_of(variant: str, name: str, folders: dict[str, list[Path]], split: str) -> dict[str, Any]:
    """A line of the table: one subnet of a variant beside that of the same name of ``own``."""
    one = results(folders[variant][0], split)[name]

    def tested(kind: str) -> list[Any]:
        return [
            read_tested(folder, split, SubnetConfig.pick(results(folder, split)[name]))
            for folder in folders[kind]
        ]

    pairs = dict(enumerate(zip(tested(variant), tested(OWN), strict=True)))
    compared = compare_error_rates({seed: [pair] for seed, pair in pairs.items()})
    costs = [Cost.read(folder) for folder in folders[variant]]
    seeds = [f"{results(folder, split)[name]['WER']:.2f}" for folder in folders[variant]]
    return {
        "supernet": variant,
        "subnet": name,
        "parameters": f"{one['parameters'] / 1e6:.2f} M",
        "steps": str(costs[0].optimizer_steps),
        "training, processor s": str(round(sum(cost.processor for cost in costs) / len(costs))),
        "WER %": f"{compared['WER']:.2f}",
        "by seed": " / ".join(seeds),
        f"against {OWN}, %, over {compared['units']} {compared['unit']}": "-"
        if variant == OWN
        else difference_text(compared["relative difference"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hparams", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where the runs go")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--split", default="test-clean")
    args, overrides = parser.parse_known_args()
    work, recipe = args.work.resolve(), args.hparams.resolve()
    variants = list(dict.fromkeys([OWN, *args.variants]))
    common = [f"--data_folder={work}/corpus", f"--tokenizer_folder={work}/tokenizer", *overrides]
    seeds = list(dict.fromkeys(args.seeds))
    folders = {name: [work / f"{name}-{seed}" for seed in seeds] for name in variants}
    for i, seed in enumerate(seeds):
        for name in variants:
            run(recipe, folders[name][i], [*common, f"--seed={seed}", *VARIANTS[name]])
    names = list(results(folders[OWN][0], args.split))
    print(table_of([row_of(v, name, folders, args.split) for v in variants for name in names]))


if __name__ == "__main__":
    main()
