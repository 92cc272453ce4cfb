#!/usr/bin/env python3
"""Trains a TODM supernet and measures its subnets.

    python train.py hparams/mini.yaml
    python train.py hparams/supernet.yaml --data_folder=/path/to/LibriSpeech
    torchrun --nproc_per_node=8 train.py hparams/supernet.yaml --data_folder=...

Everything else is told by the YAML; any key of it can be overridden as ``--key=value``. Data that
cannot be used is left out and counted; with ``--strict`` it is an error.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import infer_device, run_on_main

from todm_sb import provenance
from todm_sb.brain import TODMBrain
from todm_sb.dataio.manifest import write_atomic
from todm_sb.dataio.pipeline import get_tokenizer, make_dataset, make_loader_kwargs
from todm_sb.distributed import join, leave
from todm_sb.errors import one_line_errors
from todm_sb.report import results_table
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.settings import load_checked


def main(argv: list[str]) -> None:
    """Prepares the data, trains, tests, and prints the table of subnets."""
    recipe, run_opts = parse_arguments(argv)
    if (run_opts.device or infer_device()) == "cpu":
        run_opts = replace(run_opts, distributed_backend="gloo")
    join(run_opts.distributed_backend)
    hparams = load_checked(recipe, run_opts)
    sb.create_experiment_directory(experiment_directory=hparams["output_folder"])
    run_on_main(recipe.save, args=[hparams["output_folder"]])
    run_on_main(provenance.record, args=[hparams["output_folder"], __file__, argv])
    for prepare in hparams["prepare"]:
        run_on_main(prepare)
    tokenizer = get_tokenizer(
        hparams["tokenizer_folder"],
        hparams["vocab_size"],
        hparams["train_csv"],
        hparams["tokenizer_type"],
    )
    model, features = hparams["model"], hparams["features"]

    def dataset(csv: str) -> sb.dataio.dataset.DynamicItemDataset:
        def n_frames_of(seconds: float) -> int:
            n_features = int(seconds * hparams["sample_rate"]) // features.hop + 1
            return model.encoder.subsampling.output_lengths(n_features)

        return make_dataset(
            csv,
            tokenizer,
            n_frames_of,
            hparams["max_duration"],
            hparams["sample_rate"],
            hparams["strict"],
            record=Path(hparams["output_folder"]) / f"faults_{Path(csv).stem}.csv",
        )

    def loader_kwargs(data: sb.dataio.dataset.DynamicItemDataset, shuffle: bool) -> dict:
        options = make_loader_kwargs(data, hparams["max_batch_seconds"], hparams["seed"], shuffle)
        return {**options, "num_workers": hparams["num_workers"]}

    brain = TODMBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.use_tokenizer(tokenizer)
    train, valid = dataset(hparams["train_csv"]), dataset(hparams["valid_csv"])
    brain.fit(
        brain.hparams.epoch_counter,
        train,
        valid,
        train_loader_kwargs=loader_kwargs(train, shuffle=True),
        valid_loader_kwargs=loader_kwargs(valid, shuffle=False),
    )
    for name in hparams["test_splits"]:
        test = dataset(f"{hparams['manifests']}/{name}.csv")
        brain.evaluate(test, min_key="WER", test_loader_kwargs=loader_kwargs(test, shuffle=False))
        if sb.utils.distributed.if_main_process():
            results = brain.results()
            folder = Path(hparams["output_folder"])
            brain.errors.write_alignments(folder, name)
            write_atomic(folder / f"errors_{name}.json", json.dumps(brain.errors.by_utterance()))
            write_atomic(folder / f"results_{name}.json", json.dumps(results, indent=2) + "\n")
            print(f"\n{name}\n{results_table(results)}")
    leave()


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
