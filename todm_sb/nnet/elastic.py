"""Layers of which a part is chosen at each call."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.dropout import dropout

Module = TypeVar("Module", bound=nn.Module)


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

    Raises:
        ValueError: if dropout at ``d_hidden`` would be above 1.
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
        if self.dropout_of(d_hidden) > 1:
            raise ValueError(
                f"dropout is {dropout} at dropout_width {self.dropout_width}, and so above 1 for "
                f"{d_hidden} hidden units: raise dropout_width"
            )

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
        width = self._check(width)
        parts: tuple[Tensor, ...] = self.w_1.weight, self.w_1.bias, self.w_2.weight
        w_1, b_1, w_2 = parts
        if width < self.d_hidden:  # slices are copied into zeros in the backward pass
            w_1, b_1, w_2 = w_1[:width], b_1[:width], w_2[:, :width]
        hidden = F.silu(F.linear(x, w_1, b_1))
        hidden = dropout(hidden, self.dropout_of(width), self.training)
        return F.linear(hidden, w_2, self.w_2.bias)

    def extract(self, width: int | None = None) -> ElasticFFN:
        """A standalone layer of this width, equal in outputs and in its dropout.

        Raises:
            ValueError: if the width does not fit.
        """
        width = self._check(width)
        cut = {
            self.w_1.weight: self.w_1.weight[:width],
            self.w_1.bias: self.w_1.bias[:width],
            self.w_2.weight: self.w_2.weight[:, :width],
        }
        small = copy_with(self, cut)
        small.w_1.out_features = small.w_2.in_features = width
        return small

    def macs(self, n_frames: int, width: int | None = None) -> int:
        """Multiply-accumulates of so many frames at this width."""
        return 2 * n_frames * self.w_1.in_features * self._check(width)

    def _check(self, width: int | None) -> int:
        width = self.d_hidden if width is None else width
        if not 1 <= width <= self.d_hidden:
            raise ValueError(f"FFN width {width} is outside 1..{self.d_hidden}")
        return width


def copy_with(module: Module, parts: Mapping[Any, Any]) -> Module:
    """A copy of a module that shares nothing with it, some of its parts replaced.

    Args:
        module: stays as it is.
        parts: by a module within it, the one that the copy has in its place, as it is; by a
            parameter or buffer, the values, of any shape, which are copied. Sizes that modules keep
            as attributes are for the caller to set.
    """
    memo: dict[int, Any] = {}
    for old, new in parts.items():
        if isinstance(old, Tensor):
            new = new.detach().clone()
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, old.requires_grad)
        memo[id(old)] = new
    # A deep copy takes what its memo holds as copied: what is replaced is not paid for.
    with torch.no_grad():
        return copy.deepcopy(module, memo)
