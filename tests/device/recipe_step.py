"""The recipe's own training, narrow, on any device: what tests and benchmarks/launches.py count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from todm_sb.dataio.pipeline import SpeechBatch
from todm_sb.training.brain import TODMBrain
from todm_sb.training.recipe import Recipe

HPARAMS = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "todm" / "hparams"
RATE = 16000

# supernet.yaml with its 16 layers, its losses and its augmentation. Launches do not depend on
# widths, and little on lengths.
NARROW = {
    "data_folder": "none",
    "__set_seed": None,
    "prepare": [],
    "vocab_size": 30,
    "sandwich_warmup": 0,
    "search_space": {"ffn_dims": [16, 24, 32]},
    "named_subnets": None,
    "model": {
        "d_joint": 16,
        "encoder": {"d_model": 16, "n_heads": 2, "state_size": 2, "channels": [2, 2]},
        "predictor": {"d_model": 16},
    },
}


def make_brain(
    folder: Path, device: str, recipe: str = "supernet.yaml", **changes: Any
) -> TODMBrain:
    """A brain of the recipe, ready for the steps of its second epoch.

    Args:
        folder: of the run.
        device: to train on.
        recipe: a YAML of the recipe's.
        changes: of its keys, over those of :data:`NARROW`; or of SpeechBrain's options.
    """
    options: dict[str, Any] = {"precision": "fp32", "grad_accumulation_factor": 1}
    options |= {key: changes.pop(key) for key in options.keys() & changes.keys()}
    overrides = {**NARROW, "output_folder": str(folder), **changes}
    torch.manual_seed(0)
    hparams = Recipe(HPARAMS / recipe, overrides).load()
    brain = TODMBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {"device": device, "max_grad_norm": float("inf"), **options},
        checkpointer=None,
    )
    brain.hparams.epoch_counter.current = 2
    brain.hparams.lr_annealing.set_epoch(1)
    brain.modules.train()
    return brain


def make_batch(
    vocab_size: int, seconds: tuple[float, ...] = (2.0, 1.3, 1.7), seed: int = 0
) -> SpeechBatch:
    """Noise with random labels, three a second.

    Args:
        vocab_size: labels, 0 is blank.
        seconds: of each utterance.
        seed: of both.
    """
    generator = torch.Generator().manual_seed(seed)
    return SpeechBatch(
        [
            {
                "id": f"{seed}-{i}",
                "duration": n,
                "sig": 0.1 * torch.randn(int(RATE * n), generator=generator),
                "words": ["A"],
                "tokens": torch.randint(1, vocab_size, (round(3 * n),), generator=generator),
            }
            for i, n in enumerate(seconds)
        ]
    )
