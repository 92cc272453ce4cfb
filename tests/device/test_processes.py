"""What processes send each other lies on their device: NCCL takes nothing else."""

from unittest import mock

import torch
from pretended import FAR
from speechbrain.processing.features import InputNormalization
from torch import nn

from todm_sb.training import distributed


class Group:
    """Two processes, of which the other has nothing; takes down the devices of what is sent."""

    def __init__(self, monkeypatch):
        self.devices = []
        monkeypatch.setattr(distributed, "n_ranks", lambda: 2)
        monkeypatch.setattr(torch.distributed, "all_reduce", self.take)
        monkeypatch.setattr(distributed, "combine_gaussian_statistics_distributed", self.combine)

    def take(self, tensor, async_op=False):
        self.devices.append(tensor.device.type)
        return mock.Mock() if async_op else None

    def combine(self, statistics):
        for tensor in statistics[1:]:
            self.take(tensor)
        return 1, *statistics[1:]


def test_numbers_gradients_and_statistics_are_sent_from_the_device(ledger, monkeypatch):
    group = Group(monkeypatch)
    assert distributed.all_reduce_sum(3, FAR) == 3
    layer = nn.Linear(2, 2).to(FAR)
    layer.weight.grad = torch.ones(2, 2, device=FAR)
    distributed.all_reduce_gradients(layer.parameters())
    assert layer.weight.grad.tolist() == [[1, 1], [1, 1]]
    normalize = InputNormalization(norm_type="global").to(FAR)
    normalize.glob_mean = normalize.glob_std = torch.empty(0, device=FAR)
    distributed.update_statistics_with_nothing(normalize, 4, 1)
    assert group.devices == [FAR] * 5
