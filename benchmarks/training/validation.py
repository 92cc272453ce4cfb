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

import speechbrain as sb
import torch

from todm_sb.dataio.pipeline import make_loader_kwargs
from todm_sb.training.brain import TODMBrain
from todm_sb.training.runs import dev_dataset, load_run, run_tokenizer
from todm_sb.utils.tables import table_of


@torch.no_grad()
def validate(run: Path, warmup: float) -> dict[str, str]:
    """A row of the table.

    Args:
        run: ``output_folder`` of train.py.
        warmup: reference batches of max alone; infinitely many for max alone.
    """
    hparams = load_run(run)
    tokenizer = run_tokenizer(hparams)
    options = {"device": "cpu", "precision": hparams["precision"], "noprogressbar": True}
    hparams["sandwich_warmup"] = warmup
    brain = TODMBrain(hparams["modules"], hparams=hparams, run_opts=options, tokenizer=tokenizer)
    brain.modules.eval()
    data = dev_dataset(hparams, tokenizer)
    loader_kwargs = make_loader_kwargs(data, hparams["max_batch_seconds"], 0, shuffle=False)
    brain.on_stage_start(sb.Stage.VALID, 1)
    began = time.process_time()
    for batch in brain.make_dataloader(data, sb.Stage.VALID, **loader_kwargs):
        brain.evaluate_batch(batch, sb.Stage.VALID)
    took = time.process_time() - began
    rates = brain.evaluation.errors.rates()
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
