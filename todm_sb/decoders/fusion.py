"""What may be added to the scores of a beam search."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from todm_sb.nnet.predictor import State


class Fusion(Protocol):
    """Scores labels beside the network: a language model, or hot words.

    A search asks :meth:`predict` once with the start symbol and no state, and begins anew whenever
    it does. Each of several threads may be at a search of its own; a thread is at one at a time.
    """

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes one label after each of some hypotheses.

        Args:
            labels: (batch,); blank is the start symbol.
            state: before it, each tensor batch first; None for the beginning.

        Returns:
            (batch, V), what each next symbol adds to a hypothesis's score, 0 for blank; and the
            state after the label.
        """

    def final(self, state: State) -> Tensor:
        """What is added to the scores of hypotheses that end here.

        Args:
            state: of :meth:`predict`.

        Returns:
            (batch,)
        """
