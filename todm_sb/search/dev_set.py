"""Error rates of many subnets on one set of utterances."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats
from torch import Tensor

from todm_sb.decoders.protocol import Searcher
from todm_sb.decoders.transducer import TransducerSearcher
from todm_sb.nnet.transducer import Transducer
from todm_sb.space import SubnetConfig
from todm_sb.utils.errors import DataError


@dataclass(frozen=True)
class Utterances:
    """A batch to be decoded.

    Args:
        features: (batch, feature frames, bins).
        n_features: (batch,), integer feature frames of each utterance.
        words: what was said in each.
        undecodable: what was said in others, whose audio cannot be decoded.
    """

    features: Tensor
    n_features: Tensor
    words: list[list[str]]
    undecodable: list[list[str]] = field(default_factory=list)


class DevSet:
    """Utterances whose shared part, the trunk, is computed once for all subnets.

    Kept are the subsampled frames, and what the encoder shares: once for all batches that it
    serves alike.

    Args:
        model: the supernet, in evaluation mode; must not change afterwards.
        batches: the utterances.
        words_of: from label ids to words.
        searcher: of the model; by default greedy transducer search.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Transducer,
        batches: Iterable[Utterances],
        words_of: Callable[[list[int]], list[str]],
        searcher: Searcher | None = None,
    ) -> None:
        self.model = model
        self.searcher = searcher or TransducerSearcher(model)
        self.words_of = words_of
        self.words: list[list[str]] = []
        self.undecodable: list[list[str]] = []
        self.batches: list[tuple[Tensor, Tensor]] = []
        for batch in batches:
            self.undecodable += batch.undecodable
            if not batch.words:
                continue
            frames, n_frames = model.encoder.subsampling(batch.features, batch.n_features)
            self.batches.append((frames, n_frames))
            self.words += batch.words
        lengths = {model.encoder.shareable(frames.shape[1]) for frames, _ in self.batches}
        self.shared = {n: model.encoder.shared(n) for n in sorted(lengths)}

    @property
    def scored(self) -> dict[str, int]:
        """``utterances`` and ``words`` of an error rate, ``undecodable`` of the utterances."""
        spoken = self.words + self.undecodable
        return {
            "utterances": len(spoken),
            "words": sum(map(len, spoken)),
            "undecodable": len(self.undecodable),
        }

    @torch.no_grad()
    def error_rate(self, config: SubnetConfig) -> float:
        """Word error rate of a subnet in percent; what cannot be decoded counts as nothing
        heard.

        Args:
            config: the subnet.
        """
        heard: list[list[str]] = []
        for frames, n_frames in self.batches:
            shared = self.shared[self.model.encoder.shareable(frames.shape[1])]
            encoded = self.model.encoder.encode(frames, n_frames, config, shared)
            found = self.searcher.search(encoded, n_frames)
            heard += [self.words_of(best.tokens) for best, *_ in found]
        heard += [[] for _ in self.undecodable]
        return accumulatable_wer_stats(self.words + self.undecodable, heard)["WER"]


def speech(batches: Iterable[Utterances], n_features: int) -> Tensor:
    """One long utterance, to measure time on: (1, n_features, bins).

    Args:
        batches: utterances to put one after another, again from the first where they are few.
        n_features: feature frames.

    Raises:
        DataError: if there is none.
    """
    parts: list[Tensor] = []
    for batch in batches:
        rows = zip(batch.features, batch.n_features.tolist(), strict=True)
        parts += [row[:n] for row, n in rows]
        if sum(map(len, parts)) >= n_features:
            break
    if not any(map(len, parts)):
        raise DataError("no audio of the dev set can be decoded: nothing to measure time on")
    joined = torch.cat(parts)
    return joined.repeat(-(-n_features // len(joined)), 1)[:n_features].unsqueeze(0)
