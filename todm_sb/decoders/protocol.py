"""What the rest asks of a searcher."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis


@runtime_checkable
class Searcher(Protocol):
    """From encoder outputs to labels, with what else it needs of the model that it was made of.

    A recipe names its class, ``searcher: !name:my_module.MySearcher``, with arguments besides the
    model. A class derived from this needs :meth:`search` alone.
    """

    @abstractmethod
    def search(self, encoded: Tensor, n_frames: Tensor) -> list[list[Hypothesis]]:
        """Searches a batch.

        Args:
            encoded: (batch, T, d_model), encoder outputs.
            n_frames: (batch,), integer frames of each utterance; those behind them are padding.

        Returns:
            The hypotheses of each utterance, best first, at least one.
        """
        ...

    def greedy(self) -> Searcher:
        """The fast one of its kind, which validates after each epoch and compares subnets."""
        return self
