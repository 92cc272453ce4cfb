"""Joiners: from encoder and predictor to label logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """``logits = W tanh(P_enc enc + P_pred pred)``.

    The two projections are done once a frame and once a label; :meth:`forward` is what remains
    to be done at each lattice node.

    Args:
        d_encoder: width of the encoder's output.
        d_predictor: width of the predictor's output.
        d_joint: width of the joint space.
        vocab_size: labels with blank.
    """

    def __init__(self, d_encoder: int, d_predictor: int, d_joint: int, vocab_size: int) -> None:
        super().__init__()
        self.project_encoder = nn.Linear(d_encoder, d_joint)
        self.project_predictor = nn.Linear(d_predictor, d_joint, bias=False)
        self.output = nn.Linear(d_joint, vocab_size)

    @property
    def vocab_size(self) -> int:
        """Labels with blank."""
        return self.output.out_features

    def forward(self, encoder: Tensor, predictor: Tensor) -> Tensor:
        """Logits of broadcast nodes.

        Args:
            encoder: (..., d_joint), projected encoder output.
            predictor: (..., d_joint), projected predictor output, broadcastable to it.

        Returns:
            (..., vocab_size)
        """
        return self.output(torch.tanh(encoder + predictor))


class SimpleJoiner(nn.Module):
    """``logits = W_enc enc + W_pred pred``, whose lattice costs little (Kuang et al. 2022,
    arXiv:2206.13236).

    An auxiliary of training: its alignments tell where the real joiner has to look.

    Args:
        d_encoder: width of the encoder's output.
        d_predictor: width of the predictor's output.
        vocab_size: labels with blank.
    """

    def __init__(self, d_encoder: int, d_predictor: int, vocab_size: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(d_encoder, vocab_size)
        self.predictor = nn.Linear(d_predictor, vocab_size, bias=False)
