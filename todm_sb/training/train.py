"""A recipe, from its command line to the table of its subnets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import speechbrain as sb
from speechbrain.utils.distributed import infer_device

from todm_sb.dataio.batches import largest_growth
from todm_sb.dataio.pipeline import make_loader_kwargs
from todm_sb.dataio.split import read_splits
from todm_sb.dataio.tokenizer import tokenizer_of
from todm_sb.training.adaptation import Start, start_of
from todm_sb.training.arguments import parse_arguments
from todm_sb.training.brain import TODMBrain
from todm_sb.training.distributed import begin_training, join, leave, own_device
from todm_sb.training.folder import run_folder
from todm_sb.training.memory_scan import scan_memory
from todm_sb.training.pace import never_begun
from todm_sb.training.results import results_table
from todm_sb.training.settings import load_checked
from todm_sb.utils.processes import on_first

logger = logging.getLogger(__name__)


def main(argv: Sequence[str], program: Sequence[str] = ("python", "train.py")) -> None:
    """Prepares the data, trains, tests, and prints the table of subnets.

    Args:
        argv: the recipe's YAML, overrides of its keys, and options of SpeechBrain.
        program: what was called with them, for the record.

    Raises:
        TODMError: with one line, if the user can mend the cause.
    """
    recipe, run_opts = parse_arguments(argv)
    run_opts = replace(run_opts, device=own_device(run_opts.device))
    if (run_opts.device or infer_device()) == "cpu":
        run_opts = replace(run_opts, distributed_backend="gloo")
    join(run_opts.distributed_backend)
    start = start_of(recipe)
    hparams, test_only = load_checked(start.recipe, run_opts), run_opts.test_only
    start.check(hparams)
    with run_folder(hparams, start.recipe, [*program, *argv], test_only) as begin:
        train_and_test(hparams, run_opts, begin, start)


def train_and_test(
    hparams: dict[str, Any], run_opts: Any, begin: Callable[[], None], start: Start
) -> None:
    """Prepares the data, trains unless there is only to be tested, and tests.

    Args:
        hparams: the recipe, loaded.
        run_opts: SpeechBrain's options of the run.
        begin: to call when all is checked; see :func:`todm_sb.training.folder.run_folder`.
        start: where training begins.
    """
    for prepare in hparams["prepare"]:
        on_first(prepare)
    on_first(start.put_tokenizer, hparams)
    tokenizer = tokenizer_of(hparams)
    splits = read_splits(hparams, tokenizer)

    stretch = largest_growth(hparams.get("wav_augment"))

    def loader_kwargs(data: sb.dataio.dataset.DynamicItemDataset, shuffle: bool) -> dict:
        growth = stretch if shuffle else 1.0
        bound, ascending = hparams["max_batch_seconds"], hparams.get("ascending_epochs", 0)
        options = make_loader_kwargs(data, bound, hparams["seed"], shuffle, growth, ascending)
        return {**options, "num_workers": hparams["num_workers"]}

    brain = TODMBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        tokenizer=tokenizer,
    )
    train = splits.train
    if not run_opts.test_only:  # also a check
        loader = brain.make_dataloader(train, sb.Stage.TRAIN, **loader_kwargs(train, shuffle=True))
        for line in never_begun(hparams, len(loader), brain.pace):
            on_first(logger.warning, line)
        scan_memory(brain, hparams, train, tokenizer, stretch)
        train = loader
    begin()
    start.begin(hparams, splits.train)
    begin_training(run_opts.distributed_backend)
    if not run_opts.test_only:
        sb.create_experiment_directory(hparams["output_folder"])
    brain.fit(
        brain.hparams.epoch_counter,
        train,
        splits.valid,
        valid_loader_kwargs=loader_kwargs(splits.valid, shuffle=False),
    )
    # Where there is no test set, the weights that are deployed are measured on the dev set.
    tests = splits.tests or {Path(hparams["valid_csv"]).stem: splits.valid}
    for name, test in tests.items():
        brain.evaluate(test, min_key="WER", test_loader_kwargs=loader_kwargs(test, shuffle=False))
        if sb.utils.distributed.if_main_process():
            results = brain.write_results(Path(hparams["output_folder"]), name)
            print(f"\n{name}\n{results_table(results)}")
    leave()
