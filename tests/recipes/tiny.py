"""Recipes made tiny. Processes that tests start import it, too."""

import argparse
import hashlib
import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIBRISPEECH = ROOT / "recipes" / "LibriSpeech" / "todm"


def load_script(path):
    """A recipe script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name, *argv):
    """Runs a command of todm-sb; its errors come as they are raised."""
    module = importlib.import_module(f"todm_sb.cli.{name}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([*map(str, argv)]))


def tiny_model(**encoder):
    """The override of a recipe's model."""
    options = {"d_model": 16, "n_heads": 4, "channels": [4, 4], **encoder}
    return json.dumps({"d_joint": 24, "encoder": options, "predictor": {"d_model": 16}})


CORPUS_SIZE = {"n_train": 24, "n_dev": 6, "n_test": 6}

# mini.yaml made tiny: two epochs of a few steps.
TINY = {
    "vocab_size": 40,
    "number_of_epochs": 2,
    "precision": "fp32",
    "max_batch_seconds": 16.0,
    "reference_batch_seconds": 16.0,
    "avg_checkpoints": 1,
    "sandwich_warmup": 2,
    "search_space": "{n_layers: 2, min_layers: 1, ffn_dims: [16, 32], layer_drop: any}",
    "named_subnets": "{wide: {layers: [1], ffn_dims: [32]}, "
    "deep: {layers: [0, 1], ffn_dims: [16, 16]}}",
    # In dual mode, so that what a run has to repeat includes the mode of each step.
    "model": tiny_model(dual_mode=True),
    **CORPUS_SIZE,
}


def arguments(corpus, output, recipe="mini.yaml", **overrides):
    """Command line of a tiny run; a batch is a step, unless told otherwise."""
    options = {**TINY, "data_folder": corpus, "output_folder": output, **overrides}
    if "max_batch_seconds" in overrides:
        options["reference_batch_seconds"] = overrides["max_batch_seconds"]
    return [
        str(LIBRISPEECH / "hparams" / recipe),
        *(f"--{key}={value}" for key, value in options.items() if value is not None),
        "--noprogressbar",
        "--device=cpu",
    ]


def contents(folder):
    """All that lies in a folder: the hash and time of each file, None for a folder, by path."""
    return {
        str(path.relative_to(folder)): None
        if path.is_dir()
        else (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }
