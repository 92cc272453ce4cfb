"""The sandwich step of a recipe, counted on tensors without elements."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from todm_sb.experiments.plan.count import Counted, Work
from todm_sb.losses.lattice import HostLengths
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.objective import Objective
from todm_sb.supernet.sandwich import sandwich_backward
from todm_sb.supernet.trunk import Labels, Trunk
from todm_sb.utils.device_kind import counted_for

# Random subnets of which the one of average cost is counted.
DRAWS = 200
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}

aten = torch.ops.aten


@dataclass(frozen=True)
class Utterance:
    """One of a batch of equals.

    Args:
        n_features: feature frames.
        n_labels: of its transcript.
    """

    n_features: int
    n_labels: int


@dataclass(frozen=True)
class Count:
    """What a piece of a training takes.

    Args:
        works: by kind, see :mod:`todm_sb.experiments.plan.count`.
        memory: bytes, at most at a time.
    """

    works: dict[str, Work]
    memory: float

    def __add__(self, other: Count) -> Count:
        kinds = {**self.works, **other.works}
        works = {k: self.works.get(k, Work()) + other.works.get(k, Work()) for k in kinds}
        return Count(works, self.memory + other.memory)

    def __mul__(self, factor: float) -> Count:
        return Count({k: x * factor for k, x in self.works.items()}, factor * self.memory)


class _StandIns(TorchDispatchMode):
    """Losses whose results' shapes depend on lengths, which a tensor without elements lacks."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.torchaudio.rnnt_loss_forward.default:
            return args[0].new_empty(len(args[0])), torch.empty_like(args[0])
        if func in (aten._ctc_loss.default, aten._ctc_loss.Tensor):
            x, labels = args[:2]
            nodes = 2 * labels.shape[-1] + 1
            return x.new_empty(x.shape[1]), x.new_empty(x.shape[1], x.shape[0], nodes)
        return func(*args, **(kwargs or {}))


def subnets_of(model: Transducer, space: SearchSpace, n_random: int) -> list[SubnetConfig]:
    """Max, min, and the subnet of average cost in place of random ones.

    Args:
        model: the supernet.
        space: of its subnets.
        n_random: random subnets a step.
    """
    if space.size == 1:
        return [space.max]
    rng = random.Random(0)
    drawn = [space.random(rng) for _ in range(DRAWS)]
    macs = {config: _macs(model, config) for config in drawn}
    mean = fmean(macs[config] for config in drawn)
    average = min(macs, key=lambda config: abs(macs[config] - mean))
    return [space.max, space.min, *[average] * n_random]


def _macs(model: Transducer, config: SubnetConfig) -> int:
    return model.encoder.macs(1000, config)


@dataclass(frozen=True)
class Step:
    """Forward and backward of batches of any size.

    Args:
        shared: what a batch takes besides its utterances.
        own: what each of them takes.
        launches: of a batch.
    """

    shared: Count
    own: Count
    launches: float

    def works(self, n_utterances: float) -> dict[str, Work]:
        """Of a batch of so many."""
        return (self.shared + self.own * n_utterances).works

    def memory(self, n_utterances: float, micro_batches: int = 1) -> float:
        """Bytes of activations, at most at a time, besides weights and gradients.

        Args:
            n_utterances: of the batch.
            micro_batches: parts that the subnets run on in turn; the trunk's activations, a small
                part, are taken to be divided, too.
        """
        return self.shared.memory + self.own.memory * n_utterances / micro_batches


def count_step(
    network: Mapping[str, Any],
    objective: Objective,
    subnets: list[SubnetConfig],
    utterance: Utterance,
    precision: str,
    kind: str = "cuda",
) -> Step:
    """Counts batches of one and of two utterances, which tell of any: all is in proportion to them,
    but for what they share. Features and augmentation take little, and are left out. The band of
    the lattice is as narrow as it becomes: how wide it is at first depends on the data.

    Args:
        network: the arguments of the supernet.
        objective: of the training.
        subnets: of a step.
        utterance: of which all of a batch are.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        kind: of the device that it is counted for, as of ``torch.device.type``.
    """
    if objective.pruning is not None:
        objective = replace(objective, pruning=replace(objective.pruning, coverage=0.0))
    with FakeTensorMode(), _StandIns(), counted_for(kind):
        model = Transducer(**network)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        one, two = (
            _count_batch(model, objective, subnets, utterance, n, precision) for n in (1, 2)
        )
    own = two + one * -1
    launches = sum(work.launches for work in one.works.values())
    return Step(one + own * -1, own, launches)


def _count_batch(
    model: Transducer,
    objective: Objective,
    subnets: list[SubnetConfig],
    utterance: Utterance,
    n: int,
    precision: str,
) -> Count:
    """Within fake tensors."""
    views = objective.views(None)
    n *= views
    features = torch.zeros(n, utterance.n_features, model.encoder.n_features)
    lengths = torch.full((n,), utterance.n_features)
    ids = torch.ones(n, utterance.n_labels, dtype=torch.long)
    labels = Labels(ids, torch.full((n,), utterance.n_labels), views)
    n_frames = model.encoder.n_frames(utterance.n_features)
    host = HostLengths([n_frames] * n, [utterance.n_labels] * n)
    dtype = AUTOCAST.get(precision, torch.bfloat16)
    with Counted() as counted, torch.autocast("cpu", dtype, enabled=precision in AUTOCAST):
        trunk = Trunk.compute(model, features, lengths, ids)
        sandwich_backward(model, objective, trunk, labels, subnets, _backward, None, 1, host=host)
    return Count(dict(counted.works), counted.peak)


def _backward(loss: Tensor) -> None:
    with torch.autocast("cpu", enabled=False):
        loss.backward()


def count_optimizer(opt_class: Callable[..., Any], n_parameters: int) -> Count:
    """A step of the optimizer, and its state as ``memory``, in proportion to a small one's.

    Args:
        opt_class: makes it of parameters.
        n_parameters: elements that are trained.
    """
    params = [nn.Parameter(torch.ones(256, 256)) for _ in range(4)]
    optimizer = opt_class(params)
    works: dict[str, Work] = {}
    for _ in range(2):  # the first makes the state
        for p in params:
            p.grad = torch.full_like(p, 0.1)
        with Counted() as counted:
            optimizer.step()
        works = dict(counted.works)
    state = sum(
        x.numel() * x.element_size()
        for values in optimizer.state.values()
        for x in values.values()
        if isinstance(x, Tensor)
    )
    scale = n_parameters / sum(p.numel() for p in params)
    scaled = {k: Work(scale * x.flops, scale * x.n_bytes, x.launches) for k, x in works.items()}
    return Count(scaled, scale * state)
