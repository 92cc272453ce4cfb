"""The whole network that is trained and deployed."""

from __future__ import annotations

from torch import nn

from todm_sb.nnet.encoder import MHSSMEncoder
from todm_sb.nnet.joiner import Joiner
from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor


class Transducer(nn.Module):
    """RNN transducer: encoder, predictor and joiner, sized to each other.

    Args:
        encoder: from features to frames.
        predictor: from labels to the expectation of the next.
        d_joint: width of the joint space.
        vocab_size: labels with blank.
        ctc: whether to add a linear CTC head on the encoder, an auxiliary of training.
    """

    def __init__(
        self,
        encoder: MHSSMEncoder,
        predictor: LSTMPredictor | StatelessPredictor,
        d_joint: int,
        vocab_size: int,
        ctc: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.joiner = Joiner(encoder.d_model, predictor.d_model, d_joint, vocab_size)
        self.ctc_output = nn.Linear(encoder.d_model, vocab_size) if ctc else None

    @property
    def blank(self) -> int:
        """Id of blank."""
        return self.predictor.blank
