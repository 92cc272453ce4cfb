"""Training in several processes, without a wrapper around the model.

A sandwich step runs one backward pass for each subnet and one for the trunk, over parts of the
model rather than through its ``forward``; DistributedDataParallel, which counts on one backward
pass of one forward pass, would miss the gradients or sum them once a subnet. Here each process
gathers the gradients of its whole step, and then they are summed once
(:func:`all_reduce_gradients`).

All functions do nothing, or the obvious, in a single process. Those that communicate must be called
by every process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Protocol

import torch
from speechbrain.processing.features import (
    InputNormalization,
    combine_gaussian_statistics,
    combine_gaussian_statistics_distributed,
)
from speechbrain.utils.distributed import is_distributed_initialized
from torch import Tensor, distributed, nn
from torch.utils.data import Sampler

from todm_sb.utils.errors import ConfigError

# Gradients are summed in pieces of about this size: large enough for the network, and small beside
# the gradients themselves.
BUCKET_BYTES = 32 << 20

# How long processes wait for each other: the first checks the data while the others wait.
PATIENCE = timedelta(hours=2)
# In training none works for long while the others wait, and a GPU that hangs costs all of them.
TRAINING_PATIENCE = timedelta(minutes=10)

# Gradients' types, as they are sent.
SUM_DTYPES = {"fp32": None, "bf16": torch.bfloat16}


def own_device(device: str | None) -> str | None:
    """The device of this process: of several that torchrun started on a machine each has its own.

    Args:
        device: that all were given, such as ``cuda``; None for whatever there is.

    Raises:
        ConfigError: if all are to share one GPU.
    """
    if device is None or "LOCAL_RANK" not in os.environ:
        return device
    kind, colon, _ = device.partition(":")
    if kind == "cpu":
        return device
    if colon and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"--device={device} puts all processes on one device: take --device={kind}, and each "
            "has its own"
        )
    return device if colon else f"{kind}:{os.environ['LOCAL_RANK']}"


def join(backend: str) -> None:
    """Makes one group of the processes that torchrun started; does nothing where it did not.

    Until :func:`begin_training` they talk by gloo, and wait for each other for :data:`PATIENCE`.

    Processes that torchrun starts again on one node do not look for those that died. It keeps its
    store, with their addresses in it (torch 2.11), and who reads them before they are written anew
    would wait for an answer in vain. On several nodes the count of restarts is not the same
    everywhere, and the addresses have to be kept apart as ``docs/reliability.md`` says.

    Args:
        backend: ``gloo`` or ``nccl``, of the training.

    Raises:
        ConfigError: if this process has no GPU, and needs one.
    """
    if "RANK" not in os.environ or is_distributed_initialized():
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if backend == "nccl":
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local_rank} finds {torch.cuda.device_count()} GPUs: start no more "
                "processes than there are, or take --device=cpu"
            )
        torch.cuda.set_device(local_rank)
    store, rank, size = next(distributed.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = distributed.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    _form("gloo", store, rank, size, PATIENCE)


def begin_training(backend: str, patience: timedelta = TRAINING_PATIENCE) -> None:
    """Has the processes talk as training needs it; every process calls this when all is prepared.

    Tensors of GPUs then go by NCCL, objects and tensors of the CPU by gloo still. On CPUs, where
    processes can be slow, all stays as it is.

    Args:
        backend: of the training, as :func:`join` got it.
        patience: how long they wait for each other from now on.
    """
    if backend != "gloo" and is_distributed_initialized():
        form_again(f"cpu:gloo,cuda:{backend}", patience)


def form_again(backend: str, patience: timedelta) -> None:
    """The same processes as a new group; every process calls this.

    Args:
        backend: of the new group, see ``torch.distributed.init_process_group``.
        patience: how long they wait for each other.
    """
    store = distributed.distributed_c10d._get_default_store()
    rank, size = distributed.get_rank(), distributed.get_world_size()
    # Whose process ends a group early may bring down others that are still in it.
    distributed.barrier()
    distributed.destroy_process_group()
    _form(backend, distributed.PrefixStore("training", store), rank, size, patience)


def _form(backend: str, store: Any, rank: int, size: int, patience: timedelta) -> None:
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=patience
    )


def n_ranks() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if is_distributed_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if is_distributed_initialized() else 0


def all_reduce_sum(number: int, device: torch.device | str = "cpu") -> int:
    """The sum of a number over all processes.

    Args:
        number: of this process.
        device: that the processes communicate by.
    """
    if n_ranks() == 1:
        return number
    tensor = torch.tensor(number, device=device)
    distributed.all_reduce(tensor)
    return int(tensor)


def all_gather(value: Any) -> list[Any]:
    """The values of all processes, by rank; they can be anything that can be pickled."""
    if n_ranks() == 1:
        return [value]
    values: list[Any] = [None] * n_ranks()
    distributed.all_gather_object(values, value)
    return values


def leave() -> None:
    """Ends the group once all processes are done; one that just exits can bring others down."""
    if is_distributed_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


@torch.no_grad()
def broadcast_weights(module: nn.Module) -> None:
    """Gives all processes the parameters and buffers of the first."""
    if n_ranks() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            distributed.broadcast(tensor, src=0)


@torch.no_grad()
def all_reduce_gradients(
    parameters: Iterable[nn.Parameter], dtype: torch.dtype | None = None
) -> None:
    """Replaces gradients by their sums over all processes.

    A parameter without gradient counts as zero where another process has one, and stays without
    where none has: optimizers leave it alone, as in a single process.

    Args:
        parameters: the same, in the same order, in every process.
        dtype: what gradients are sent and added up as; None for as they are. In bfloat16 they are
            half as many bytes, and rounded to 8 bits with each process that adds its own.
    """
    if n_ranks() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    device = parameters[0].device
    has_gradient = torch.tensor([p.grad is not None for p in parameters], device=device).int()
    distributed.all_reduce(has_gradient)
    used = [p for p, n in zip(parameters, has_gradient.tolist(), strict=True) if n]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
    for p, gradient in zip(used, gradients, strict=True):
        p.grad = gradient
    # All pieces are under way before the first is waited for.
    sums = []
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket]).to(dtype or bucket[0].dtype)
        sums.append((bucket, flat, distributed.all_reduce(flat, async_op=True)))
    for bucket, flat, work in sums:
        work.wait()
        pieces = flat.split([gradient.numel() for gradient in bucket])
        views = [piece.view_as(g) for piece, g in zip(pieces, bucket, strict=True)]
        torch._foreach_copy_(bucket, views)


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Lists of tensors of one data type, of about ``BUCKET_BYTES`` each."""
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        bucket, size = [], 0
        for tensor in (t for t in tensors if t.dtype == dtype):
            bucket.append(tensor)
            size += tensor.nbytes
            if size >= BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
        if bucket:
            yield bucket


def update_statistics_with_nothing(
    normalizer: InputNormalization, n_features: int, epoch: int | None = None
) -> None:
    """What a process does whose batch is empty while others update the normaliser.

    Args:
        normalizer: in training mode it takes the statistics over all processes.
        n_features: size of a frame.
        epoch: current epoch of training.
    """
    if normalizer.norm_type != "global" or not normalizer._should_update(epoch):
        return
    device = normalizer.glob_mean.device
    nothing = (0, torch.zeros(n_features, device=device), torch.zeros(n_features, device=device))
    new = combine_gaussian_statistics_distributed(nothing)
    if normalizer.count == 0:
        count, mean, variance = new
    else:
        known = (normalizer.count, normalizer.glob_mean, normalizer.glob_std.square())
        count, mean, variance = combine_gaussian_statistics(known, new)
    normalizer.count, normalizer.glob_mean, normalizer.glob_std = count, mean, variance.sqrt()


class BatchSampler(Protocol):
    """What deals out batches of indices in an order of each epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch."""

    def __iter__(self) -> Iterator[list[int]]:
        """The batches."""

    def __len__(self) -> int:
        """How many there are."""


class RankBatches(Sampler):
    """Deals the batches of a sampler out to the processes, one after the other.

    Args:
        batches: a batch sampler that gives the same batches in every process.
        even: start again from the first batches until all processes have equally many, so that
            none waits for the others in vain. For evaluation, where nobody waits, each batch is
            dealt once.
    """

    def __init__(self, batches: BatchSampler, even: bool) -> None:
        self.batches = batches
        self.even = even

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on, for the order of the batches."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(self.batches)
        n = len(self) * n_ranks() if self.even else len(batches)
        return (batches[i % len(batches)] for i in range(rank(), n, n_ranks()))

    def __len__(self) -> int:
        if self.even:
            return -(-len(self.batches) // n_ranks())
        return len(range(rank(), len(self.batches), n_ranks()))
