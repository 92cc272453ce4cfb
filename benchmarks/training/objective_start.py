#!/usr/bin/env python3
"""What the first steps of a training teach the encoder, objective by objective.

    cd benchmarks/training
    python objective_start.py ../../recipes/LibriSpeech/todm/hparams/mini_librispeech.yaml \\
        --data_folder=/path/to/LibriSpeech --work=runs --variants full shipped --seeds 1234 1 2

Trains each variant with each seed by the recipe's ``train.py``, one after the other, until it has
taken the steps asked for; a run that has them already is only read. Other arguments, as
``--vocab_size=256``, are overrides of the recipe, for all of them. Prints nats a label of the CTC
head and of the transducer (max subnet), and writes them to ``../results/``.

``steps.jsonl`` has the losses of a batch as means over its utterances. Over the last ``WINDOW``
steps they are added up, times the utterances, and divided by the labels of as much audio: its
seconds times the training data's labels a second, which differ from those of the very utterances by
a percent or two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from todm_sb.dataio.manifest import read_csv
from todm_sb.dataio.tokenizer import encode
from todm_sb.training.runs import load_hparams, run_tokenizer
from todm_sb.training.watch import read_steps

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 20
STEPS = (100, 200, 250, 300)

AUGMENTED = "--augment_after=0"
SIMPLE = {"s_range": 5, "by": "simple", "coverage": 0.0, "warmup_batches": 2000}
VARIANTS = {
    "default": [],
    # What supernet.yaml had up to commit 909ff9d: a band from the first step on, CTC weight 0.3.
    "shipped": [
        AUGMENTED,
        "--objective={ctc_weight: 0.3}",
        f"--pruning={json.dumps(SIMPLE)}",
        "--model={simple_joiner: True}",
    ],
    # The full lattice and as much CTC as transducer.
    "full": [AUGMENTED, "--pruning=null"],
    # The same without augmentation.
    "plain": ["--pruning=null", "--wav_augment=null", "--feature_augment=null"],
    # Parameters that start at zero move as if they had this size, SSMs' with a size of their own.
    "spread": ["--opt_class={param_min_rms: 0.01}", "--model={encoder: {spread: 0.3}}"],
}


def run(recipe: Path, folder: Path, arguments: list[str], steps: int) -> None:
    """Trains until ``steps`` steps are taken, then ends the training.

    Args:
        recipe: YAML file.
        folder: of the run.
        arguments: of ``train.py``.
        steps: optimizer steps.

    Raises:
        SystemExit: if the folder is of a run with other arguments, or the training ends early.
    """
    steps_file = folder / "steps.jsonl"
    given = folder.parent / f"{folder.name}.json"
    if given.exists() and json.loads(given.read_text()) != arguments:
        raise SystemExit(f"{folder.name} was run with other arguments: give another --work")
    if len(read_steps(steps_file)) >= steps:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    given.write_text(json.dumps(arguments))
    command = [sys.executable, "train.py", str(recipe), f"--output_folder={folder}", *arguments]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        child = subprocess.Popen(command, cwd=recipe.parents[1], stdout=log, stderr=log)
        try:
            while child.poll() is None and len(read_steps(steps_file)) < steps:
                time.sleep(5)
        finally:
            child.terminate()
            child.wait()
    if len(read_steps(steps_file)) < steps:
        raise SystemExit(f"{folder.name} ended early: see {log.name}")


def labels_a_second(folder: Path) -> float:
    """Of the training data, by the run's own manifest and tokenizer."""
    hparams = load_hparams(folder)
    tokenizer = run_tokenizer(hparams)
    rows = read_csv(hparams["train_csv"])
    n_labels = sum(len(encode(tokenizer, row.wrds)) for row in rows)
    return n_labels / sum(row.duration for row in rows)


def nats_a_label(records: list[dict[str, Any]], rate: float, step: int) -> dict[str, float] | None:
    """Means over the steps up to ``step``; None if it is not reached."""
    window = [r for r in records if step - WINDOW < r["step"] <= step]
    if not window or window[-1]["step"] < step:
        return None
    n_labels = rate * sum(r["audio"] for r in window)
    values = {"ctc": lambda r: r["ctc"][0], "transducer": lambda r: r["max"]}
    return {
        name: round(sum(value(r) * r["utterances"] for r in window) / n_labels, 3)
        for name, value in values.items()
    }


def table(results: dict[str, Any], steps: list[int]) -> str:
    """Markdown: a row a run."""
    head = ["variant", "seed", *(f"CTC {n}" for n in steps), *(f"transducer {n}" for n in steps)]
    lines = [head, ["---"] * len(head)]
    for name, seeds in results.items():
        for seed, found in seeds.items():
            at = [found["steps"].get(str(n)) for n in steps]
            values = [a and a[loss] for loss in ("ctc", "transducer") for a in at]
            lines.append([name, seed, *("-" if v is None else f"{v:.2f}" for v in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("hparams", type=Path)
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the runs go")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--seeds", nargs="+", default=["1234"])
    parser.add_argument("--steps", nargs="+", type=int, default=list(STEPS))
    parser.add_argument("--read-only", action="store_true", help="read what runs there are")
    parser.add_argument("--out", type=Path, help="default: objective_start.json in --work")
    args, others = parser.parse_known_args()
    if args.read_only and others:
        parser.error(f"--read-only trains nothing: leave {others[0]} out")
    work, recipe = args.work.resolve(), args.hparams.resolve()
    out = args.out or work / "objective_start.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    for seed in args.seeds:
        for name in args.variants:
            folder = work / f"{name}-{seed}"
            if not args.read_only:
                common = [
                    f"--data_folder={args.data_folder}",
                    f"--tokenizer_folder={work}/tokenizer",
                ]
                common.append(f"--seed={seed}")
                run(recipe, folder, [*common, *others, *VARIANTS[name]], max(args.steps))
            records = read_steps(folder / "steps.jsonl")
            if not records:
                continue
            rate = labels_a_second(folder)
            found = {str(n): nats_a_label(records, rate, n) for n in args.steps}
            results.setdefault(name, {})[seed] = {
                "overrides": [*others, *VARIANTS[name]],
                "steps": {n: value for n, value in found.items() if value is not None},
            }
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results, args.steps))


if __name__ == "__main__":
    main()
