"""How long a subnet takes on this machine, from a table measured once.

All work runs on one thread, and what is measured is its processor time: where nothing else runs it
is what a clock on the wall shows, and other programs on the same cores do not add to it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from todm_sb.decoders.greedy import greedy_search
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SearchSpace, SubnetConfig
from todm_sb.supernet.extract import extract_subnet

# Runs of a network in a row; the first fills the caches.
RUNS = 4

# Bytes of the block that makes the allocator keep twice as much.
KEPT = 30 << 20


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of each layer by its choices, and of the rest; a subnet's time is their sum.

    What the choice of a dimension takes or saves is taken to be the same whatever the others are:
    the parts of a layer run one after another.

    Args:
        rest: what every subnet runs: subsampling, norms and search.
        layers: seconds of each encoder layer of the supernet at its largest.
        savings: for each layer, by dimension, the seconds that each choice saves of them.
    """

    rest: float
    layers: tuple[float, ...]
    savings: tuple[dict[str, dict[int, float]], ...]

    def __call__(self, config: SubnetConfig) -> float:
        """Seconds of a subnet, from features to labels."""
        return self.rest + sum(
            self.layers[i] - sum(self.savings[i][key][choice] for key, choice in choices.items())
            for i, choices in config.active()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        savings = [
            {key: {str(choice): s for choice, s in of.items()} for key, of in layer.items()}
            for layer in self.savings
        ]
        return {"rest": self.rest, "layers": list(self.layers), "savings": savings}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatencyTable:
        """Inverse of :meth:`to_dict`."""
        savings = (
            {key: {int(choice): s for choice, s in of.items()} for key, of in layer.items()}
            for layer in data["savings"]
        )
        return cls(data["rest"], tuple(data["layers"]), tuple(savings))

    @classmethod
    def measure(
        cls,
        supernet: Transducer,
        space: SearchSpace,
        features: Tensor,
        repeats: int = 10,
        max_symbols: int = 5,
    ) -> LatencyTable:
        """Times the layers where they run: inside whole networks, cut out, on one thread.

        A layer by itself finds its weights in nearer caches than one in a network does, and one
        in a shallow network in nearer ones than in a deep one. So each entry is the mean over a
        deep network and a shallow one (all layers or every other one, all of them alike, and at
        their largest but in one dimension). The networks take turns, each with a few runs in a row
        of which the first, that fills the caches, does not count; the fastest run of each counts.

        Args:
            supernet: on the CPU, in evaluation mode; stays as it is.
            space: what its layers can be.
            features: (1, frames, bins), one utterance.
            repeats: turns of each network.
            max_symbols: see :func:`todm_sb.decoders.greedy.greedy_search`.
        """
        every = tuple(range(space.n_layers))
        depths = [layers for layers in (every, every[::2], every[1::2]) if layers]
        smaller = [(key, choice) for key, values in space.choices for choice in values[:-1]]
        largest = {key: values[-1] for key, values in space.choices}
        variants: dict[tuple[str, int] | None, dict[str, int]] = {None: largest}
        variants |= {(key, choice): {**largest, key: choice} for key, choice in smaller}
        configs = [
            (name, SubnetConfig(layers, **{key: [c] * len(layers) for key, c in choice.items()}))
            for name, choice in variants.items()
            for layers in depths
        ]
        networks = [extract_subnet(supernet, config) for _, config in configs]
        # Of each network's fastest run: the least of each layer alone adds up to less than any run.
        least = [[math.inf] * (len(config.layers) + 1) for _, config in configs]
        with _steady():
            for i, network in itertools.chain(*repeats * [list(enumerate(networks))]):
                for run in range(RUNS):
                    times = _time_layers(network, features, max_symbols)
                    if run > 0:
                        least[i] = min(least[i], times, key=sum)
        seconds: dict[Any, list[list[float]]] = {name: [[] for _ in every] for name in variants}
        for (name, config), times in zip(configs, least, strict=True):
            for layer, of_layer in zip(config.layers, times, strict=False):
                seconds[name][layer].append(of_layer)
        means = {name: [fmean(times) for times in layers] for name, layers in seconds.items()}

        def saved(layer: int, key: str, choice: int) -> float:
            return means[None][layer] - means[key, choice][layer] if choice < largest[key] else 0.0

        return cls(
            rest=fmean(times[-1] for times in least),
            layers=tuple(means[None]),
            savings=tuple(
                {key: {c: saved(layer, key, c) for c in values} for key, values in space.choices}
                for layer in every
            ),
        )


def decode_utterance(network: Transducer, features: Tensor, max_symbols: int = 5) -> list[int]:
    """The work whose time is meant: from features to labels.

    Args:
        network: in evaluation mode.
        features: (1, frames, bins).
        max_symbols: see :func:`todm_sb.decoders.greedy.greedy_search`.
    """
    with torch.no_grad():
        encoded, n_frames = network.encoder(features, torch.tensor([features.shape[1]]))
        return greedy_search(network, encoded, n_frames, max_symbols)[0].tokens


def time_utterance(
    networks: Sequence[Transducer], features: Tensor, repeats: int = 10, max_symbols: int = 5
) -> list[float]:
    """Seconds in which each network decodes an utterance, on one thread: the least of many times.

    They take turns, each with a few runs in a row of which the first does not count.

    Args:
        networks: in evaluation mode.
        features: (1, frames, bins).
        repeats: turns of each network.
        max_symbols: see :func:`todm_sb.decoders.greedy.greedy_search`.
    """
    best = [math.inf] * len(networks)
    with _steady():
        for i, network in itertools.chain(*repeats * [list(enumerate(networks))]):
            for run in range(RUNS):
                start = time.thread_time()
                decode_utterance(network, features, max_symbols)
                if run > 0:
                    best[i] = min(best[i], time.thread_time() - start)
    return best


def _time_layers(network: Transducer, features: Tensor, max_symbols: int) -> list[float]:
    """Seconds of each layer, and of what is not in one."""
    starts, ends = [], []
    hooks = [
        hook
        for layer in network.encoder.layers
        for hook in (
            layer.register_forward_pre_hook(lambda *_: starts.append(time.thread_time())),
            layer.register_forward_hook(lambda *_: ends.append(time.thread_time())),
        )
    ]
    start = time.thread_time()
    decode_utterance(network, features, max_symbols)
    total = time.thread_time() - start
    for hook in hooks:
        hook.remove()
    layers = [end - begin for begin, end in zip(starts, ends, strict=True)]
    return [*layers, total - sum(layers)]


@contextmanager
def _steady() -> Iterator[None]:
    """One thread, and memory that stays the process's when it is freed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # glibc gives the top of the heap back as soon as that much of it is free as twice the largest
    # block that was freed so far, up to 32 MiB (mallopt(3), M_TRIM_THRESHOLD). By the accident of
    # what else lies there, a network would then fetch its memory anew in each run, page by page,
    # or not: up to a third of its time.
    torch.empty(KEPT, dtype=torch.uint8)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
