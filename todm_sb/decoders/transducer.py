"""The searcher that recipes and exported networks use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from todm_sb.decoders.beam import beam_search
from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.nnet.transducer import Transducer


class TransducerSearcher(nn.Module):
    """Search with the call and return shape of SpeechBrain's ``TransducerBeamSearcher``.

    Args:
        model: predictor and joiner are used.
        beam_size: hypotheses kept; 1 is greedy search, which is several times faster.
        max_symbols: labels a frame at most in greedy search (a beam search emits at most one).
        nbest: hypotheses returned, of a beam search.
    """

    def __init__(
        self, model: Transducer, beam_size: int = 1, max_symbols: int = 5, nbest: int = 1
    ) -> None:
        super().__init__()
        self.model = model
        self.beam_size = beam_size
        self.max_symbols = max_symbols
        self.nbest = nbest

    def search(self, encoded: Tensor, n_frames: Tensor) -> list[list[Hypothesis]]:
        """Searches a batch of known lengths.

        Args:
            encoded: (batch, T, d_model).
            n_frames: (batch,), integer frames of each utterance.

        Returns:
            The hypotheses of each utterance, best first.
        """
        if self.beam_size == 1:
            return [[h] for h in greedy_search(self.model, encoded, n_frames, self.max_symbols)]
        return beam_search(self.model, encoded, n_frames, self.beam_size, self.nbest)

    def forward(
        self, encoded: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[
        list[list[int]], Tensor, list[list[list[int]]] | None, list[list[float | None]] | None
    ]:
        """Searches a batch.

        Args:
            encoded: (batch, T, d_model); frames that are exactly zero at an utterance's end are
                padding, as :class:`todm_sb.nnet.encoder.MHSSMEncoder` leaves them.
            wav_lens: (batch,), lengths as fractions of T, or None. A fraction gives the length
                only to within a frame; the zero frames make it exact.

        Returns:
            Label ids of each utterance, the mean over utterances of their probability, and, of a
            beam search, the n-best label ids and scores of each (None of a greedy one).
        """
        found = self.search(encoded, padded_lengths(encoded, wav_lens))
        best = [hypotheses[0] for hypotheses in found]
        scores = torch.tensor([sum(h.log_probs) if h.score is None else h.score for h in best])
        nbest = nbest_scores = None
        if self.beam_size > 1:
            nbest = [[h.tokens for h in hypotheses] for hypotheses in found]
            nbest_scores = [[h.score for h in hypotheses] for hypotheses in found]
        return [h.tokens for h in best], scores.exp().mean(), nbest, nbest_scores


def padded_lengths(encoded: Tensor, wav_lens: Tensor | None = None) -> Tensor:
    """Frames of each utterance: up to the last that is not all zero, within the fraction given.

    Args:
        encoded: (batch, T, d_model).
        wav_lens: (batch,), fractions of T, or None.

    Returns:
        (batch,), integers.
    """
    T = encoded.shape[1]
    position = torch.arange(1, T + 1, device=encoded.device)
    n_frames = ((encoded != 0).any(-1) * position).amax(1)
    if wav_lens is None:
        return n_frames
    return torch.minimum(n_frames, (wav_lens * T).long() + 1)
