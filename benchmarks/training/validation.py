#!/usr/bin/env python3
"""What a validation of a finished run takes: of all subnets that it measures, and of max alone, as
long as no other is trained.

    cd benchmarks/training
    python validation.py RUN

Processor seconds of one thread, on the run's dev set, reading and features included. Against an
older version: the same with its checkout before this one's in ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch

from todm_sb.dataio.pipeline import SpeechDataset, make_loader_kwargs
from todm_sb.training.brain import TODMBrain
from todm_sb.training.runs import dev_dataset, load_run, run_tokenizer
from todm_sb.utils.tables import table_of


def brain_of(hparams: dict[str, Any], tokenizer: Any) -> TODMBrain:
    """What validates the weights that the network has, on the CPU.

    Args:
        hparams: of a run.
        tokenizer: of the run.
    """
    hparams["average_every"] = None  # else they are taken for the end of an epoch
    options = {"device": "cpu", "precision": hparams["precision"], "noprogressbar": True}
    brain = TODMBrain(hparams["modules"], hparams=hparams, run_opts=options, tokenizer=tokenizer)
    brain.modules.eval()
    return brain


@torch.no_grad()
def dev_rates(brain: TODMBrain, data: SpeechDataset) -> dict[str, dict[str, float]]:
    """``WER`` and ``CER`` in percent, by subnet, of the weights that the network has.

    Args:
        brain: of :func:`brain_of`.
        data: the dev set.
    """
    seconds = brain.hparams.max_batch_seconds
    loader_kwargs = make_loader_kwargs(data, seconds, 0, shuffle=False)
    brain.on_stage_start(sb.Stage.VALID, 1)
    for batch in brain.make_dataloader(data, sb.Stage.VALID, **loader_kwargs):
        brain.evaluate_batch(batch, sb.Stage.VALID)
    return brain.evaluation.errors.rates()


def validate(run: Path, warmup: float) -> dict[str, str]:
    """A row of the table.

    Args:
        run: ``output_folder`` of train.py.
        warmup: reference batches of max alone; infinitely many for max alone.
    """
    hparams = load_run(run)
    tokenizer = run_tokenizer(hparams)
    hparams["sandwich_warmup"] = warmup
    brain, data = brain_of(hparams, tokenizer), dev_dataset(hparams, tokenizer)
    began = time.process_time()
    rates = dev_rates(brain, data)
    took = time.process_time() - began
    return {
        "subnets": ", ".join(rates),
        "processor s": f"{took:.1f}",
        "dev WER %": " / ".join(f"{x['WER']:.2f}" for x in rates.values()),
        "dev CER %": " / ".join(f"{x['CER']:.2f}" for x in rates.values()),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, help="output_folder of train.py")
    run = parser.parse_args().run
    torch.set_num_threads(1)
    print(table_of([validate(run, warmup) for warmup in (0, math.inf)]))


if __name__ == "__main__":
    main()
