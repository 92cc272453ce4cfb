"""One step of an LSTM without what PyTorch prepares for a sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def lstm_step(lstm: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a unidirectional LSTM without projections.

    On a CPU ``lstm(x)`` goes to oneDNN, which packs all weights anew in each call: for a single
    step of width 512 that takes three (16 rows) to fifteen times (one row) what the step takes.

    Args:
        lstm: the network.
        x: (batch, input_size).
        h, c: (batch, layers, hidden_size), the state before.

    Returns:
        (batch, hidden_size), and the state after the step, in the shapes of ``h`` and ``c``.
    """
    hs, cs = [], []
    for layer, weights in enumerate(lstm.all_weights):
        if layer > 0:
            x = F.dropout(x, lstm.dropout, lstm.training)
        x, new_c = torch.lstm_cell(x, (h[:, layer], c[:, layer]), *weights)
        hs.append(x)
        cs.append(new_c)
    return x, torch.stack(hs, 1), torch.stack(cs, 1)
