"""A checkpoint at paper size: how long it takes, how large it is, and what proving it costs.

python benchmarks/checkpoint.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from functools import partial
from pathlib import Path

import torch
from measure import MB, Row, print_table, time_in_turn
from speechbrain.utils.checkpoints import Checkpointer
from torch import nn
from torch.optim import Optimizer

from todm_sb.training.checkpoints import SafeCheckpointer, broken
from todm_sb.training.recipe import Recipe

RECIPE = Path(__file__).parents[1] / "recipes/LibriSpeech/todm/hparams/supernet.yaml"
# Between checkpoints within an epoch, as docs/reliability.md advises.
INTERVAL_MINUTES = 15


def make(folder: str) -> tuple[nn.Module, Optimizer]:
    """The recipe's network, and its optimizer with all of its state."""
    hparams = Recipe(RECIPE, {"data_folder": folder, "output_folder": folder}).load()
    model = hparams["model"]
    optimizer = hparams["opt_class"](model.parameters())
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    return model, optimizer


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    logging.disable()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model, optimizer = make(folder)
        parts = {"model": model, "optimizer": optimizer}
        ours, plain = (
            kind(f"{folder}/{kind.__name__}", parts) for kind in (SafeCheckpointer, Checkpointer)
        )
        safe, unsafe = time_in_turn(
            partial(ours.save_and_keep_only, num_to_keep=1),
            partial(plain.save_and_keep_only, num_to_keep=1),
            repeats=repeats,
            warmup=1,
        )
        (path,) = (checkpoint.path for checkpoint in ours.list_checkpoints())
        size = sum(file.stat().st_size for file in path.iterdir())
        proof, load = time_in_turn(
            partial(broken, path), ours.recover_if_possible, repeats=repeats, warmup=1
        )
    shapes = f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, ScaledAdam"
    claim = f"writing a checkpoint every {INTERVAL_MINUTES} minutes, peer those minutes"
    print_table([Row(claim, shapes, safe.median, 60.0 * INTERVAL_MINUTES, "s", 0.02)])
    print(
        f"size {size / MB:.0f} MB; SpeechBrain's own Checkpointer writes in {unsafe.median:.2f} s"
    )
    print(f"before it is loaded, in {load.median:.2f} s, it is proved in {proof.median:.2f} s")


if __name__ == "__main__":
    main()
