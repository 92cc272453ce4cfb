"""The mean of the weights of an epoch, against the mean written out."""

import pytest
import torch
from torch import nn

from todm_sb.training.checkpoints import SafeCheckpointer, keep, recover_average
from todm_sb.training.weight_average import WeightAverage


def network(value=0.0):
    model = nn.BatchNorm1d(2).double()  # its buffer num_batches_tracked is an integer
    nn.init.constant_(model.weight, value)
    return model


def walk(model, average, steps):
    """Takes steps to random weights; gives the weights after each."""
    seen = []
    for step in steps:
        nn.init.normal_(model.weight)
        model.num_batches_tracked += 1
        seen.append(model.weight.detach().clone())
        average.add(step)
    return seen


@pytest.mark.parametrize("every", [1, 3])
def test_validation_has_the_mean_and_training_the_weights_bit_by_bit(every):
    model = network()
    average = WeightAverage(model, every)
    average.begin()
    seen = walk(model, average, range(1, 8))
    average.swap()
    wanted = torch.stack([w for step, w in enumerate(seen, 1) if step % every == 0]).mean(0)
    torch.testing.assert_close(model.weight.detach(), wanted)
    assert model.num_batches_tracked == 7
    average.swap()
    assert torch.equal(model.weight, seen[-1])


def test_each_epoch_has_a_mean_of_its_own_and_a_short_one_that_of_its_last_weights():
    model = network()
    average = WeightAverage(model, 2)
    for steps, used in ((range(1, 5), [1, 3]), (range(5, 8), [1]), (range(7, 8), [0])):
        average.begin()
        seen = walk(model, average, steps)
        average.swap()
        torch.testing.assert_close(
            model.weight.detach(), torch.stack([seen[i] for i in used]).mean(0)
        )
        average.swap()


def test_an_epoch_that_was_broken_off_goes_on_to_the_same_mean(tmp_path):
    model, other = network(), network()
    average, again = WeightAverage(model, 1), WeightAverage(other, 1)
    average.begin()
    walk(model, average, range(1, 4))
    average.save(tmp_path / "x")
    again.load(tmp_path / "x", end_of_epoch=False)
    for _ in range(2):
        nn.init.normal_(model.weight)
        other.load_state_dict(model.state_dict())
        average.add(1)
        again.add(1)
    average.swap()
    again.swap()
    assert torch.equal(model.weight, other.weight)
    again.load(tmp_path / "x", end_of_epoch=True)
    assert again.n == 0


def test_the_means_of_the_best_epochs_are_averaged(tmp_path):
    model = network()
    average = WeightAverage(model, 1)
    checkpointer = SafeCheckpointer(tmp_path, {"model": model})
    keep(checkpointer, optional=True, average=average)
    means = []
    for wer in (3.0, 1.0, 2.0):
        average.begin()
        means.append(torch.stack(walk(model, average, range(3))).mean(0))
        checkpointer.save_checkpoint(meta={"WER": wer})
    recover_average(checkpointer, model, 2, min_key="WER")
    torch.testing.assert_close(model.weight.detach(), torch.stack(means[1:]).mean(0))
    assert model.num_batches_tracked.dtype == torch.long


def test_checkpoints_from_before_there_was_a_mean_are_loaded_and_averaged_as_they_were(tmp_path):
    model = network(2.0)
    SafeCheckpointer(tmp_path, {"model": model}).save_checkpoint(meta={"WER": 1.0})
    average = WeightAverage(model, 1)
    checkpointer = SafeCheckpointer(tmp_path, {"model": model})
    keep(checkpointer, optional=True, average=average)
    nn.init.constant_(model.weight, 5.0)
    recover_average(checkpointer, model, 1, min_key="WER")
    assert model.weight.tolist() == [2.0, 2.0]
