"""Greedy search of a CTC head (Graves et al. 2006)."""

from __future__ import annotations

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.protocol import Searcher
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.transducer import Transducer
from todm_sb.utils.errors import ConfigError


class CTCSearcher(Searcher):
    """The best alignment: the most probable symbol of each frame, repeats and blanks dropped.

    It needs neither predictor nor joiner, and looks at all frames at once.

    Args:
        model: its CTC head is used.

    Raises:
        ConfigError: if it has none.
    """

    def __init__(self, model: Transducer) -> None:
        if model.ctc_output is None:
            raise ConfigError(
                "CTCSearcher needs a CTC head: set the model's ctc: True (exported networks have "
                "none: they need TransducerSearcher)"
            )
        self.output, self.blank = model.ctc_output, model.blank

    @torch.no_grad()
    def search(self, encoded: Tensor, n_frames: Tensor) -> list[list[Hypothesis]]:
        """See :class:`todm_sb.decoders.protocol.Searcher`.

        A label's frame is the first of its repeats. A score is the log-probability of the best
        alignment, blanks and repeats among it.
        """
        logits = self.output(encoded)  # (batch, T, V)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        log_probs, labels = logits.log_softmax(-1, dtype=dtype).max(-1)  # (batch, T) each
        own = frame_mask(n_frames.to(encoded.device), encoded.shape[1]).squeeze(-1)
        repeats = torch.zeros_like(own)
        repeats[:, 1:] = labels[:, 1:] == labels[:, :-1]
        rows, frames = (own & ~repeats & (labels != self.blank)).nonzero(as_tuple=True)
        scores = log_probs.where(own, 0).sum(1)
        found = [Hypothesis([], [], [], score) for score in scores.tolist()]
        columns = (rows, labels[rows, frames], frames, log_probs[rows, frames])
        for row, label, frame, log_prob in zip(*(x.tolist() for x in columns), strict=True):
            found[row].tokens.append(label)
            found[row].frames.append(frame)
            found[row].log_probs.append(log_prob)
        return [[hypothesis] for hypothesis in found]
