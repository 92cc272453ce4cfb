"""The pretended device computes what the CPU does, refuses what a GPU refuses, and counts."""

import copy
import pickle

import pytest
import torch
import torchaudio
from pretended import FAR, MixedDevicesError, pretended_device
from torch import nn


def test_there_is_no_such_device_outside(ledger):
    assert torch.zeros(1, device=FAR).device.type == FAR
    assert torch.accelerator.is_available()


def test_after_a_test_nobody_finds_it():
    assert not torch.accelerator.is_available()


def test_networks_compute_and_learn_as_on_the_cpu(ledger):
    near = nn.ModuleList([nn.Conv1d(4, 6, 3), nn.LSTM(6, 5, 2, batch_first=True), nn.Linear(5, 3)])
    far = copy.deepcopy(near).to(FAR)
    x = torch.randn(2, 4, 9)
    for (conv, lstm, linear), device in ((near, "cpu"), (far, FAR)):
        y = linear(lstm(conv(x.to(device)).transpose(1, 2))[0])
        y.log_softmax(-1)[..., 0].square().mean().backward()
    for p, q in zip(near.parameters(), far.parameters(), strict=True):
        assert q.grad.device.type == FAR
        torch.testing.assert_close(q.grad.cpu(), p.grad)
    cells = [
        torch.lstm_cell(
            torch.ones(2, 6, device=d), [torch.ones(2, 5, device=d)] * 2, *m[1].all_weights[0]
        )
        for m, d in ((near, "cpu"), (far, FAR))
    ]
    torch.testing.assert_close([y.cpu() for y in cells[1]], [*cells[0]])


@pytest.mark.parametrize(
    "mixed",
    [
        lambda far, near: far + near,
        lambda far, near: torch.cat([far, near]),
        lambda far, near: far @ near,
        lambda far, near: torch.stack([far, far]).index_add_(0, torch.zeros(1).long(), far[None]),
        lambda far, near: torch.where(near > 0, far, far),
        lambda far, near: torch.stack([far[0, 0], near[0, 0]]),
        lambda far, near: far.numpy(),
    ],
)
def test_tensors_of_two_devices_do_not_mix(ledger, mixed):
    far, near = torch.ones(2, 2, device=FAR), torch.ones(2, 2)
    with pytest.raises((MixedDevicesError, TypeError)):
        mixed(far, near)


def test_numbers_and_copies_do(ledger):
    far, near = torch.ones(3, device=FAR), torch.tensor([1.0, 2.0, 3.0])
    assert (far * near[2]).tolist() == [3, 3, 3]
    assert far.copy_(near).tolist() == near.copy_(far).tolist() == [1, 2, 3]


def test_a_launch_is_an_operator_that_computes(ledger):
    x = torch.ones(2, 3, device=FAR)
    ledger.clear()
    y = x.T.unsqueeze(0)[:, :2].detach() * 2
    torch._foreach_add_([x, x, y], 1)
    assert ledger.launches.total() == 2
    assert {what for what, _ in ledger.launches} == {"aten.mul.Tensor", "aten._foreach_add_.Scalar"}


@pytest.mark.parametrize(
    ("work", "reads", "writes"),
    [
        (lambda x: x.sum().item(), 1, 0),
        (lambda x: bool(x.any()), 1, 0),
        (lambda x: x.tolist(), 1, 0),
        (lambda x: x.cpu(), 1, 0),
        (lambda x: x.nonzero(), 1, 0),
        (lambda x: x[x > 1], 1, 0),
        (lambda x: x[: x.long().max()], 1, 0),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 0, 1),
        (lambda x: x[[0, 2]], 0, 1),
        (lambda x: torch.zeros(3).to(x.device), 0, 1),
        (lambda x: torch.zeros(3).to(x.device, non_blocking=True), 0, 0),
        (lambda x: x.where(x > 1, 0).sort()[0][x.argmax()[None]], 0, 0),
    ],
)
def test_waits_of_the_host_are_counted(ledger, work, reads, writes):
    x = torch.tensor([1.0, 2.0, 0.0]).to(FAR)
    ledger.clear()
    work(x)
    assert (ledger.reads.total(), ledger.writes.total()) == (reads, writes)


def test_autocast_has_its_precision_and_float32_for_logarithms(ledger):
    x = torch.ones(2, 2, device=FAR)
    with torch.autocast(FAR, torch.bfloat16):
        y = x @ x
        assert y.dtype == torch.bfloat16
        assert y.log_softmax(-1).dtype == torch.float32


def test_what_is_saved_can_be_loaded_anywhere(ledger, tmp_path):
    torch.save({"x": torch.ones(2, device=FAR)}, tmp_path / "x.pt")
    for device in ("cpu", FAR):
        assert torch.load(tmp_path / "x.pt", map_location=device)["x"].device.type == device
    assert pickle.loads(pickle.dumps(torch.ones(2, device=FAR))).tolist() == [1, 1]


LOSS = {
    "targets": [[1, 2], [1, 0]],
    "frames": [4, 3],
    "labels": [2, 1],
    "T": 4,
    "dtype": torch.int32,
}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"dtype": torch.int64}, "int32"),
        ({"T": 5}, "longest frames"),
        ({"targets": [[1, 2, 0], [1, 0, 0]]}, "longest"),
        ({"frames": [1, 1], "T": 1}, "unwritten"),
        ({"labels": [0, 0], "targets": [[], []]}, "unwritten"),
        ({"frames": [4, 3], "strided": True}, "contiguous"),
    ],
)
def test_the_transducer_loss_has_the_rules_of_its_kernel(ledger, changes, fault):
    given = {**LOSS, **changes}
    dtype = given["dtype"]
    targets = torch.tensor(given["targets"], device=FAR).to(dtype)
    n, u = (torch.tensor(given[k], device=FAR).to(dtype) for k in ("frames", "labels"))
    if "strided" in given:
        n = torch.stack([n, n], 1)[:, 0]
    logits = torch.randn(2, given["T"], targets.shape[1] + 1, 5, device=FAR, requires_grad=True)
    arguments = (logits, targets, n, u)
    if fault is None:
        torchaudio.functional.rnnt_loss(*arguments).backward()
        assert sum(n for (what, _), n in ledger.reads.items() if "rnnt" in what) == 2
        return
    with pytest.raises((ValueError, RuntimeError), match=fault):
        torchaudio.functional.rnnt_loss(*arguments)


def test_the_device_can_be_had_again():
    for _ in range(2):
        with pretended_device():
            assert torch.ones(1, device=FAR).item() == 1
