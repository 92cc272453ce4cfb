"""Gradients of several batches make a step: the mean over those that were really gathered."""

import pytest
import torch
from speechbrain import Stage
from test_distributed import global_batch, make_brain

from todm_sb.dataio.pipeline import BrokenAudio, SpeechBatch
from todm_sb.training.pace import check_batches
from todm_sb.utils.errors import ConfigError


def steps_of(factor, n_batches, broken=(), monkeypatch=None):
    """The gradients of each optimizer step of an epoch; the weights stay."""
    brain = make_brain(torch.float64, factor)
    brain.sandwich.warmup = float("inf")  # of max alone: the same in each grouping
    batches = [[i] for i in range(n_batches)]
    brain.make_dataloader(range(n_batches), Stage.TRAIN, batch_sampler=batches)
    steps = []

    def step():
        steps.append([p.grad.clone() for p in brain.modules.parameters() if p.grad is not None])
        brain.optimizer.zero_grad(set_to_none=True)

    monkeypatch.setattr(brain, "optimizers_step", step)
    for brain.step in range(1, n_batches + 1):
        examples = global_batch(brain.step, torch.float64)
        if brain.step in broken:
            examples = [{**x, "sig": BrokenAudio("gone")} for x in examples]
        brain.fit_batch(SpeechBatch(examples))
    return steps


def mean(*gradients):
    return [torch.stack(column).mean(0) for column in zip(*gradients, strict=True)]


@pytest.mark.parametrize(
    ("factor", "n_batches", "groups"),
    [
        (2, 4, [(0, 1), (2, 3)]),
        (2, 5, [(0, 1), (2, 3), (4,)]),  # the remainder is not dropped
        (4, 5, [(0, 1, 2, 3), (4,)]),
        (3, 5, [(0, 1, 2), (3, 4)]),
    ],
)
def test_a_step_takes_the_mean_of_its_batches_and_an_epoch_leaves_none_out(
    factor, n_batches, groups, monkeypatch
):
    alone = steps_of(1, n_batches, monkeypatch=monkeypatch)
    assert len(alone) == n_batches
    together = steps_of(factor, n_batches, monkeypatch=monkeypatch)
    assert len(together) == len(groups)
    for found, group in zip(together, groups, strict=True):
        torch.testing.assert_close(found, mean(*(alone[i] for i in group)))


def test_a_batch_without_sound_utterances_does_not_make_a_step_smaller(monkeypatch):
    alone = steps_of(1, 3, broken=[2], monkeypatch=monkeypatch)
    together = steps_of(3, 3, broken=[2], monkeypatch=monkeypatch)
    assert len(alone[1]) == 0
    torch.testing.assert_close(together[0], mean(alone[0], alone[2]))


def test_an_epoch_has_a_step_or_is_refused():
    check_batches(3, 3)
    for n in (0, 2):
        with pytest.raises(ConfigError, match=f"factor is 3, but an epoch has only {n} batches"):
            check_batches(n, 3)
    with pytest.raises(ConfigError, match="an epoch has only 0 batches"):
        check_batches(0, 1)
