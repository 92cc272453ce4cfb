"""Runs that are killed again and again, at random moments, end as an unbroken one."""

import multiprocessing
import random
import time

import pytest
import torch
from test_mini_recipe import same, weights
from tiny import LIBRISPEECH, arguments, load_script

# Processes start from one that has imported everything, and so in moments.
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["todm_sb.training.brain", "todm_sb.dataio.mini_corpus"])


def run(command):
    torch.set_num_threads(1)
    load_script(LIBRISPEECH / "train.py").main(command)


def seconds_of(command):
    """Runs to the end; gives how long it took."""
    began = time.monotonic()
    process = START.Process(target=run, args=(command,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - began


def test_a_run_at_its_limit_of_steps_stays_as_it_is(corpus, tmp_path, train):
    command = [*arguments(corpus, tmp_path / "run"), "--optimizer_step_limit=1"]
    found = []
    for _ in range(2):
        train(command)
        saved = sorted(path.name for path in (tmp_path / "run" / "save").glob("CKPT*"))
        found.append((saved, (tmp_path / "run" / "history.jsonl").read_text()))
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [100])
def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(corpus, tmp_path, kills):
    unbroken = arguments(corpus, tmp_path / "unbroken", ckpt_interval_steps=1)
    duration = seconds_of(unbroken)
    rng = random.Random(0)
    done = finished = 0
    while done < kills or not finished:
        output = tmp_path / str(finished)
        command = arguments(corpus, output, ckpt_interval_steps=1)
        process = START.Process(target=run, args=(command,))
        process.start()
        process.join(rng.uniform(0, duration))
        if process.is_alive() and done < kills:
            process.kill()
            done += 1
        process.join()
        if process.exitcode == 0:
            assert same(weights(output), weights(tmp_path / "unbroken"))
            finished += 1
    assert done == kills
