"""The searcher that recipes and exported networks use."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.decoders.beam import beam_search
from todm_sb.decoders.fusion import Fusion
from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.language_model import ShallowFusion
from todm_sb.decoders.networks import SearchNetworks, search_networks
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import integer

_COUNT = integer(1, 10**6)


class TransducerSearcher(nn.Module):
    """Search with the call and return shape of SpeechBrain's ``TransducerBeamSearcher``.

    Args:
        model: predictor and joiner are used.
        beam_size: hypotheses kept; 1 is greedy search, which is several times faster.
        max_symbols: labels a frame at most.
        nbest: hypotheses returned, of a beam search; ``beam_size`` at most.
        lm_module: language model of a beam search, see
            :class:`todm_sb.decoders.language_model.ShallowFusion`.
        lm_weight: its weight; 0 for none.
        state_beam: see :func:`todm_sb.decoders.beam.beam_search`.
        fusions: what else is added to the scores of a beam search, such as hot words.

    Raises:
        ConfigError: if a number is no integer in its range, or there is a weight but no language
            model, or fusions but no beam.
    """

    def __init__(
        self,
        model: Transducer | SearchNetworks,
        beam_size: int = 1,
        max_symbols: int = 5,
        nbest: int = 1,
        lm_module: nn.Module | None = None,
        lm_weight: float = 0.0,
        state_beam: float = 2.3,
        fusions: Sequence[Fusion] = (),
    ) -> None:
        super().__init__()
        _COUNT(beam_size, "beam_size")
        _COUNT(max_symbols, "max_symbols")
        integer(1, beam_size)(nbest, "nbest")
        if fusions and beam_size == 1:
            raise ConfigError("greedy search knows no language model or hot words: beam_size >= 2")
        if lm_weight > 0 and lm_module is None:
            raise ConfigError(f"lm_weight is {lm_weight}, but there is no lm_module: give one")
        self.model = model
        self.beam_size = beam_size
        self.max_symbols = max_symbols
        self.nbest = nbest
        self.lm = lm_module
        self.lm_weight = lm_weight
        self.state_beam = state_beam
        self.fusions = tuple(fusions)

    def search(self, encoded: Tensor, n_frames: Tensor) -> list[list[Hypothesis]]:
        """Searches a batch of known lengths.

        Args:
            encoded: (batch, T, d_model).
            n_frames: (batch,), integer frames of each utterance.

        Returns:
            The hypotheses of each utterance, best first.
        """
        networks = search_networks(self.model)
        if self.beam_size == 1:
            return [[h] for h in greedy_search(networks, encoded, n_frames, self.max_symbols)]
        fusions = list(self.fusions)
        if self.lm is not None and self.lm_weight > 0:
            fusions.append(ShallowFusion(self.lm, self.lm_weight, networks.blank))
        return beam_search(
            networks,
            encoded,
            n_frames,
            self.beam_size,
            self.nbest,
            fusions,
            self.max_symbols,
            self.state_beam,
        )

    def greedy(self) -> TransducerSearcher:
        """See :class:`todm_sb.decoders.protocol.Searcher`."""
        searcher = copy.copy(self)
        searcher.beam_size, searcher.nbest, searcher.lm_weight = 1, 1, 0.0
        searcher.fusions = ()
        return searcher

    def forward(
        self, encoded: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[
        list[list[int]], Tensor, list[list[list[int]]] | None, list[list[float | None]] | None
    ]:
        """Searches a batch.

        Args:
            encoded: (batch, T, d_model); frames that are exactly zero at an utterance's end are
                padding, as :class:`todm_sb.nnet.encoders.Encoder` leaves them.
            wav_lens: (batch,), lengths as fractions of T, or None.

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

    A frame that the fraction covers in part counts, as in SpeechBrain's ``length_to_mask``: where
    the encoder's lengths are rounded up no frame is lost, and ``n / T`` gives n exactly.

    Args:
        encoded: (batch, T, d_model).
        wav_lens: (batch,), fractions of T, or None.

    Returns:
        (batch,), integers.
    """
    T = encoded.shape[1]
    position = torch.arange(1, T + 1, device=encoded.device)
    n_frames = F.pad((encoded != 0).any(-1) * position, (1, 0)).amax(1)
    if wav_lens is None:
        return n_frames
    fractions = wav_lens.to(encoded.device) / 1  # of integers, floats
    # Rounding adds half an epsilon of a fraction at most.
    exact = 1 - torch.finfo(fractions.dtype).eps
    within = (fractions.double() * T * exact).ceil().long()
    return torch.minimum(n_frames, within)
