"""Before a run: its hardest batches are tried, and nothing is left of it."""

import random
from functools import partial

import pytest
import torch
from recipe_step import make_batch, make_brain

from todm_sb.experiments.plan.count import Counted
from todm_sb.training import memory_scan
from todm_sb.training.memory_scan import FULL, Shape, TrialSteps, hardest, scan, scan_memory
from todm_sb.utils.errors import ConfigError

SMALL = {"search_space": {"n_layers": 2, "min_layers": 1}, "vocab_size": 17}


class LawfulMemory:
    """A device whose memory a step takes by a law; one step too large fails instead."""

    def __init__(self, per_second, base=0.2, fails_at=float("inf")):
        self.per_second, self.base, self.fails_at = per_second, base, fails_at
        self.taken = 0.0

    def used_by(self, work):
        try:
            work()
        except torch.OutOfMemoryError:
            return float("inf")
        return self.taken

    def step(self, shape, n):
        self.taken = self.base + self.per_second * n * shape.seconds * (1 + shape.n_labels / 100)
        if self.taken > self.fails_at:
            raise torch.OutOfMemoryError("as CUDA does")


SHAPES = [Shape(27.5, 60), Shape(20.0, 90), Shape(5.0, 40)]


def fits(memory, seconds):
    """Whether batches of all shapes do, by the law."""
    steps = (partial(memory.step, x, x.n_utterances(seconds)) for x in SHAPES)
    return max(map(memory.used_by, steps)) <= FULL


@pytest.mark.parametrize("fails_at", [1.0, float("inf")])
def test_the_largest_batch_that_fits_is_named(fails_at):
    memory = LawfulMemory(0.002, fails_at=fails_at)
    with pytest.raises(ConfigError) as error:
        scan(memory.step, SHAPES, 1000.0, memory)
    named = float(str(error.value).partition("--max_batch_seconds=")[2].partition(",")[0])
    memory.fails_at = float("inf")
    assert fits(memory, named)
    # The batches of some utterances are cut where one more would be too much.
    assert not fits(memory, 1.1 * named)


def test_what_fits_tells_how_much_more_would():
    memory = LawfulMemory(0.0002)
    largest = scan(memory.step, SHAPES, 1000.0, memory)
    assert largest == pytest.approx((FULL - 0.2) / (0.0002 * 1.9), rel=0.05)


def test_an_utterance_that_is_too_much_alone_is_told():
    memory = LawfulMemory(0.1)
    with pytest.raises(ConfigError, match=r"one utterance of 27\.5 s .* --max_duration"):
        scan(memory.step, SHAPES, 1000.0, memory)


def test_the_hardest_are_the_longest_the_wordiest_and_the_fastest():
    rng = random.Random(0)
    seconds = [rng.uniform(1, 20) for _ in range(300)]
    n_labels = [round(s * rng.uniform(1, 4)) for s in seconds]
    shapes = hardest(seconds, n_labels, growth=1.25)
    assert max(shape.seconds for shape in shapes) == 1.25 * max(seconds)
    assert max(shape.n_labels for shape in shapes) == max(n_labels)
    rates = [n / s for s, n in zip(seconds, n_labels, strict=True)]
    assert max(1.25 * x.n_labels / x.seconds for x in shapes) == pytest.approx(max(rates))
    assert hardest([3.0, 3.0], [5, 5]) == [Shape(3.0, 5)]


def test_a_scan_leaves_no_trace_in_the_training(tmp_path):
    losses = []
    for scanned in (False, True):
        brain = make_brain(tmp_path / str(scanned), "cpu", **SMALL)
        if scanned:
            steps = TrialSteps(brain, vars(brain.hparams))
            steps(Shape(2.0, 6), 2)
            with torch.no_grad():
                for p in brain.modules.parameters():  # as an optimizer would
                    p.add_(1.0)
            steps.undo()
        random_numbers = torch.rand(3).tolist()
        brain.on_fit_start()
        for brain.step in (1, 2):
            losses.append(float(brain.fit_batch(make_batch(17, seed=brain.step))))
        losses.extend(random_numbers)
    assert losses[:5] == losses[5:]


class CountedMemory:
    """A device of the CPU's tensors, with so many bytes."""

    def __init__(self, n_bytes):
        self.n_bytes = n_bytes

    def used_by(self, work):
        with Counted() as counted:
            work()
        return counted.peak / self.n_bytes


@pytest.mark.parametrize("consistency_weight", [0.0, 0.2])
def test_a_trial_step_takes_what_a_step_of_training_takes(tmp_path, consistency_weight):
    options = {"wav_augment": None, "augment_after": 0, **SMALL}
    objective = {"consistency_weight": consistency_weight}
    brain = make_brain(tmp_path, "cpu", objective=objective, **options)
    brain.on_fit_start()
    memory = CountedMemory(1)
    brain.step = 1
    brain.fit_batch(make_batch(17, (3.0,) * 4))
    brain.step = 2
    taken = memory.used_by(lambda: brain.fit_batch(make_batch(17, (3.0,) * 4)))
    steps = TrialSteps(brain, vars(brain.hparams))
    steps(Shape(3.0, 9), 1)
    assert memory.used_by(lambda: steps(Shape(3.0, 9), 4)) == pytest.approx(taken, rel=0.35)


class Words:
    """A tokenizer with a label a letter."""

    def unk_id(self):
        return 0

    def encode_as_ids(self, text):
        return [1] * len(text)


class Dataset:
    data = {f"{i}": {"duration": 1.0 + i, "wrds": "abc"} for i in range(3)}  # noqa: RUF012
    data_ids = list(data)  # noqa: RUF012


def test_a_run_is_refused_before_it_begins(tmp_path, monkeypatch):
    brain = make_brain(tmp_path, "cpu", **SMALL)
    hparams = {**vars(brain.hparams), "max_batch_seconds": 9.0}
    before = [p.detach().clone() for p in brain.modules.parameters()]
    scan_memory(brain, hparams, Dataset(), Words(), 1.0)  # of a CPU nothing is told
    monkeypatch.setattr(memory_scan, "meter_of", lambda device: CountedMemory(10**12))
    scan_memory(brain, hparams, Dataset(), Words(), 1.0)
    monkeypatch.setattr(memory_scan, "meter_of", lambda device: CountedMemory(10**5))
    with pytest.raises(ConfigError, match="too much for this device's memory"):
        scan_memory(brain, hparams, Dataset(), Words(), 1.0)
    assert all(torch.equal(p, q) for p, q in zip(before, brain.modules.parameters(), strict=True))
    scan_memory(brain, {**hparams, "memory_scan": False}, Dataset(), Words(), 1.0)
