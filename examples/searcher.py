"""A searcher of one's own: this file, and one line, with this file's folder on PYTHONPATH:

python train.py hparams/mini.yaml --searcher='!name:searcher.ConfidentSearcher {least: 0.5}'
"""

import math
from dataclasses import replace

from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.protocol import Searcher


class ConfidentSearcher(Searcher):
    """Greedy search that keeps the labels that it is sure of.

    Args:
        model: the network.
        least: probability of a label that is kept.
    """

    def __init__(self, model, least=0.5):
        self.model, self.least = model, math.log(least) if least else -math.inf

    def search(self, encoded, n_frames):
        """(batch, T, d_model), (batch,) -> the hypothesis of each utterance."""
        return [[self._sure(found)] for found in greedy_search(self.model, encoded, n_frames)]

    def _sure(self, found):
        kept = [i for i, log_prob in enumerate(found.log_probs) if log_prob >= self.least]
        columns = ("tokens", "frames", "log_probs")
        return replace(found, **{c: [getattr(found, c)[i] for i in kept] for c in columns})
