"""Layers whose width is chosen at each call."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class Subnet(Protocol):
    """What a network needs to know of a subnet: active layers and their FFN widths."""

    layers: tuple[int, ...]
    ffn_dims: tuple[int, ...]


class ElasticFFN(nn.Module):
    """Feed-forward layer of which any leading part of the hidden units can be used.

    Dropout adapts to the width in use (TODM, arXiv:2309.01947): narrow subnets have
    less capacity and need less regularisation, so ``p = dropout * width / dropout_width``.

    Args:
        d_model: width of input and output.
        d_hidden: number of hidden units of the widest subnet.
        dropout: probability on the hidden units at full width.
        adaptive_dropout: scale the probability with the width; if False it is always ``dropout``.
        dropout_width: the full width of the rule, ``d_hidden`` when None. A layer cut out of a
            wider one keeps the wider one's.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        dropout: float = 0.0,
        adaptive_dropout: bool = True,
        dropout_width: int | None = None,
    ) -> None:
        super().__init__()
        self.w_1 = nn.Linear(d_model, d_hidden)
        self.w_2 = nn.Linear(d_hidden, d_model)
        self.dropout = dropout
        self.adaptive_dropout = adaptive_dropout
        self.dropout_width = dropout_width or d_hidden

    @property
    def d_hidden(self) -> int:
        """Number of hidden units of the widest subnet."""
        return self.w_1.out_features

    def dropout_of(self, width: int) -> float:
        """Dropout probability of a subnet of this width."""
        return self.dropout * width / self.dropout_width if self.adaptive_dropout else self.dropout

    def forward(self, x: Tensor, width: int | None = None) -> Tensor:
        """Applies the first ``width`` hidden units, all when None.

        Args:
            x: (..., d_model).
            width: between 1 and ``d_hidden``.

        Returns:
            (..., d_model)

        Raises:
            ValueError: if the width does not fit.
        """
        width = self._check(self.d_hidden if width is None else width)
        hidden = F.silu(F.linear(x, self.w_1.weight[:width], self.w_1.bias[:width]))
        hidden = F.dropout(hidden, self.dropout_of(width), self.training)
        return F.linear(hidden, self.w_2.weight[:, :width], self.w_2.bias)

    def extract(self, width: int) -> ElasticFFN:
        """A standalone layer of this width, equal in outputs and in its dropout.

        Raises:
            ValueError: if the width does not fit.
        """
        small = ElasticFFN(
            self.w_1.in_features,
            self._check(width),
            self.dropout,
            self.adaptive_dropout,
            self.dropout_width,
        ).train(self.training)
        small.load_state_dict(
            {
                "w_1.weight": self.w_1.weight[:width],
                "w_1.bias": self.w_1.bias[:width],
                "w_2.weight": self.w_2.weight[:, :width],
                "w_2.bias": self.w_2.bias,
            }
        )
        return small.to(self.w_1.weight)

    def n_parameters(self, width: int) -> int:
        """Number of parameters of :meth:`extract` at this width."""
        d_model = self.w_1.in_features
        return width * (2 * d_model + 1) + d_model

    def _check(self, width: int) -> int:
        if not 1 <= width <= self.d_hidden:
            raise ValueError(f"FFN width {width} is outside 1..{self.d_hidden}")
        return width
