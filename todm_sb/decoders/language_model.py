"""Shallow fusion: a language model beside the predictor, over each hypothesis's labels."""

from __future__ import annotations

from torch import Tensor, nn

from todm_sb.decoders.rnn_state import batch_first, layers_first
from todm_sb.nnet.predictor import State


class ShallowFusion:
    """Scores the next label with a language model, called as SpeechBrain's searcher calls it.

    Args:
        lm_module: ``lm_module(labels, hx=hidden)`` takes (batch, 1) labels, of which blank is the
            start symbol, and the state before them, None at the start; it returns (batch, 1, V)
            logits and the state after them, (layers, batch, width) or a tuple of such (e.g.
            :class:`speechbrain.lobes.models.RNNLM.RNNLM` with ``return_hidden=True``).
        weight: of its log-probabilities.
        blank: id of blank, which it does not score.
    """

    def __init__(self, lm_module: nn.Module, weight: float, blank: int) -> None:
        self.lm_module = lm_module
        self.weight = weight
        self.blank = blank

    def predict(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes one label.

        Args:
            labels: (batch,).
            state: before it, each tensor batch first; None for the beginning.

        Returns:
            (batch, V), what each next symbol adds to a hypothesis's score, and the next state.
        """
        logits, hidden = self.lm_module(labels.unsqueeze(1), hx=layers_first(state))
        scores = self.weight * logits.flatten(1).float().log_softmax(-1)
        scores[:, self.blank] = 0
        return scores, batch_first(hidden)

    def final(self, state: State) -> Tensor:
        """Nothing: SpeechBrain's language models do not know where a sentence ends.

        Returns:
            (batch,), zeros.
        """
        return state[0].new_zeros(len(state[0]))
