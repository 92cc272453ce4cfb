"""Batches of utterances of similar durations, as full as their bound lets them be.

SpeechBrain's DynamicBatchSampler keeps utterances apart by fixed boundaries of duration. Each of
its buckets ends an epoch with a batch that is not full, and it counts on an utterance being as long
as the boundary: few buckets pad, many leave batches half empty. Here the utterances of an epoch lie
in one row, nearly sorted, which is cut where a batch is full.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from speechbrain.augment.augmenter import Augmenter
from torch.utils.data import Sampler

# How much longer an utterance may pretend to be when a row is sorted: it is what an epoch's batches
# differ by from another's, at the price of padding by half of that.
JITTER = 0.02

# Largest share of padding in an epoch, of its audio.
MAX_PADDING = 0.05


class DurationBatches(Sampler[list[int]]):
    """A batch sampler: the number of utterances times the longest is bounded in every batch.

    An utterance that alone exceeds the bound is a batch of its own. The batches of an epoch, their
    number too, follow from the arguments and the epoch alone, and so are the same in all processes.

    Args:
        durations: of the utterances, in seconds.
        max_seconds: the bound.
        seed: not negative; of the order, together with the epoch.
        shuffle: False gives the same batches in every epoch, shortest first.
        ascending_epochs: so many epochs, of which the first is 1, have their batches in ascending
            order of duration (SortaGrad, arXiv:1512.02595): where labels have few frames to be
            aligned with, a network finds out sooner that audio tells them.
    """

    def __init__(
        self,
        durations: Sequence[float],
        max_seconds: float,
        seed: int,
        shuffle: bool = True,
        ascending_epochs: int = 0,
    ) -> None:
        self.durations = np.asarray(durations, dtype=np.float64)
        self.max_seconds = max_seconds
        self.seed = seed
        self.shuffle = shuffle
        self.ascending_epochs = ascending_epochs
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Makes the batches of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        noise = JITTER * rng.random(len(self.durations)) if self.shuffle else 0.0
        row = np.argsort(self.durations * (1.0 + noise), kind="stable")
        # From either end, lest the batch that is left over be of the shortest in each epoch.
        if self.shuffle and rng.random() < 0.5:
            row = row[::-1]
        seconds = self.durations[row]
        starts = cut(seconds, self.max_seconds)
        batches = [batch.tolist() for batch in np.split(row, starts[1:])]
        longest = np.maximum.reduceat(seconds, starts)
        padding = longest @ np.diff([*starts, len(row)]) - seconds.sum()
        if padding > MAX_PADDING * seconds.sum():
            batches = split(self.durations, batches, MAX_PADDING)
        if self.shuffle and not 1 <= epoch <= self.ascending_epochs:
            self.batches = [batches[i] for i in rng.permutation(len(batches))]
        else:
            self.batches = sorted(batches, key=lambda batch: self.durations[batch].max())

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def cut(seconds: np.ndarray, max_seconds: float) -> list[int]:
    """Cuts a row of utterances wherever one more would be too much for a batch.

    A sorted row is cut into as few batches as there can be.

    Args:
        seconds: durations of the utterances, in the order of the row.
        max_seconds: bound on the utterances of a batch times the longest, if it has more than one.

    Returns:
        Where the batches start.
    """
    starts, longest = [0], 0.0
    for i, duration in enumerate(seconds.tolist()):
        longest = max(longest, duration)
        if i > starts[-1] and (i + 1 - starts[-1]) * longest > max_seconds:
            starts.append(i)
            longest = duration
    return starts


def split(
    durations: np.ndarray, batches: Iterable[Sequence[int]], max_padding: float
) -> list[list[int]]:
    """Splits the batch that saves most padding by it in two, again and again, until little is left.

    It matters where few batches hold a whole corpus, and the shortest of one are a fraction of its
    longest.

    Args:
        durations: of the utterances, in seconds.
        batches: of their numbers.
        max_padding: largest share of padding, of the audio.
    """
    heap = [_best_split(durations, batch) for batch in batches]
    heapq.heapify(heap)
    audio = durations.sum()
    padding = sum(len(batch) * durations[batch[0]] for *_, batch in heap) - audio
    while heap[0][0] < 0 and padding > max_padding * audio:
        change, n, batch = heapq.heappop(heap)
        padding += change
        for part in (batch[:n], batch[n:]):
            heapq.heappush(heap, _best_split(durations, part))
    return [batch for *_, batch in heap]


def _best_split(durations: np.ndarray, batch: Sequence[int]) -> tuple[float, int, list[int]]:
    """Seconds that the best split of a batch adds (less than 0, unless all are equally long), how
    many go to the first part, and the batch, longest first."""
    batch = sorted(batch, key=durations.__getitem__, reverse=True)
    seconds = durations[batch]
    changes = np.arange(len(batch), 0, -1) * (seconds - seconds[0])
    n = int(changes.argmin())
    return float(changes[n]), n, batch


def largest_growth(augmenter: Any) -> float:
    """How many times the seconds of a batch, padding included, can become under augmentation.

    Args:
        augmenter: of waveforms: what has ``speeds`` makes audio longer, and the copies of
            SpeechBrain's Augmenter add to the batch. Anything else, None say, is taken to do
            neither.
    """
    if not isinstance(augmenter, Augmenter):
        return _stretch(augmenter)
    stretches = list(map(_stretch, augmenter.augmentations.values()))
    copies = augmenter.repeat_augment
    if not augmenter.parallel_augment:
        stretch = math.prod(stretches)
    else:
        stretch = max(stretches, default=1.0)
        if not augmenter.parallel_augment_fixed_bs:
            copies *= min(augmenter.max_augmentations, len(stretches))
    return stretch * max(1, copies + augmenter.concat_original)


def _stretch(augmentation: Any) -> float:
    """How many times longer an utterance can become at the slowest of its speeds, in percent."""
    return 100 / min([100, *getattr(augmentation, "speeds", [])])
