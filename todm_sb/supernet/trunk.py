"""What the subnets of a training step have in common: the batch's labels and the trunk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from todm_sb.losses.lattice import HostLengths
from todm_sb.nnet.predictor import start_with_blank
from todm_sb.nnet.transducer import Transducer


@dataclass(frozen=True)
class Labels:
    """Targets of a batch.

    Args:
        ids: (batch, U), integers, padded.
        lengths: (batch,), integer labels of each utterance.
        views: rows that are augmented copies of the same utterance, one after the other.
    """

    ids: Tensor
    lengths: Tensor
    views: int = 1

    def repeated(self, views: int) -> Labels:
        """(views x batch, U) labels of so many views of each utterance, which have one so far."""
        ids, lengths = (x.repeat_interleave(views, 0) for x in (self.ids, self.lengths))
        return Labels(ids, lengths, views)

    def rows(self, part: slice | Tensor, host: HostLengths) -> Labels:
        """Those of some utterances, without padding that none of them needs.

        Args:
            part: the utterances; all views of one or none.
            host: their lengths.
        """
        _, n_labels = host.longest
        return Labels(self.ids[part, :n_labels], self.lengths[part], self.views)


@dataclass(frozen=True)
class Trunk:
    """What the subnets of a step share.

    Args:
        frames: (batch, T, d_model), subsampled frames.
        n_frames: (batch,), integer frames of each utterance.
        shared: of the encoder, see :meth:`todm_sb.nnet.encoders.Encoder.shared`.
        predictor: (batch, U + 1, d_joint), projected predictor outputs.
        simple_predictor: (batch, U + 1, V), the same for the simple joiner; None without one.
        causal: what a dual-mode network runs as.
    """

    frames: Tensor
    n_frames: Tensor
    shared: tuple[Tensor, ...]
    predictor: Tensor
    simple_predictor: Tensor | None = None
    causal: bool = False

    @classmethod
    def compute(
        cls,
        model: Transducer,
        features: Tensor,
        n_features: Tensor,
        labels: Tensor,
        causal: bool = False,
    ) -> Trunk:
        """Runs the shared parts.

        Args:
            model: the supernet.
            features: (batch, feature frames, bins).
            n_features: (batch,), integer feature frames of each utterance.
            labels: (batch, U), integer targets.
            causal: run a dual-mode network as a causal one.
        """
        frames, n_frames = model.encoder.subsampling(features, n_features)
        outputs, _ = model.predictor(start_with_blank(labels, model.blank))
        return cls(
            frames,
            n_frames,
            model.encoder.shared(frames.shape[1], causal),
            model.joiner.project_predictor(outputs),
            None if model.simple_joiner is None else model.simple_joiner.predictor(outputs),
            causal,
        )

    def cut(self) -> Trunk:
        """The same values as leaves of a graph of their own, to gather gradients in."""

        def leaf(x: Tensor) -> Tensor:
            return x.detach().requires_grad_(x.requires_grad)

        return replace(
            self,
            frames=leaf(self.frames),
            shared=tuple(map(leaf, self.shared)),
            predictor=leaf(self.predictor),
            simple_predictor=None if self.simple_predictor is None else leaf(self.simple_predictor),
        )

    def rows(self, part: slice | Tensor, host: HostLengths) -> Trunk:
        """What the subnets share for some utterances, without padding that none of them needs but
        for a frame where they have none.

        Args:
            part: the utterances.
            host: their lengths.
        """
        n_frames, n_labels = host.longest
        nodes = part, slice(n_labels + 1)
        return replace(
            self,
            frames=self.frames[part, : max(1, n_frames)],
            n_frames=self.n_frames[part],
            predictor=self.predictor[nodes],
            simple_predictor=None
            if self.simple_predictor is None
            else self.simple_predictor[nodes],
        )

    def backward(self, leaves: Trunk) -> None:
        """One backward through the trunk with the gradients gathered in :meth:`cut`'s leaves."""
        pairs = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(self._tensors(), leaves._tensors(), strict=True)
            if leaf.grad is not None
        ]
        torch.autograd.backward([tensor for tensor, _ in pairs], [grad for _, grad in pairs])

    def _tensors(self) -> list[Tensor]:
        simple = [] if self.simple_predictor is None else [self.simple_predictor]
        return [self.frames, self.predictor, *simple, *self.shared]
