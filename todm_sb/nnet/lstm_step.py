"""One step of an LSTM without what PyTorch prepares for a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from todm_sb.nnet.dropout import dropout

# Of a layer, in the order that PyTorch's cell takes them, the biases where there are any;
# ``lstm.all_weights`` looks them all up.
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


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
    names = WEIGHTS if lstm.bias else WEIGHTS[:2]
    for layer, (h_before, c_before) in enumerate(zip(h.unbind(1), c.unbind(1), strict=True)):
        if layer > 0 and lstm.training:
            x = dropout(x, lstm.dropout, lstm.training)
        weights = [getattr(lstm, f"{name}_l{layer}") for name in names]
        x, c_after = torch.lstm_cell(x, (h_before, c_before), *weights)
        hs.append(x)
        cs.append(c_after)
    if len(hs) == 1:  # nothing to be copied
        return x, x.unsqueeze(1), cs[0].unsqueeze(1)
    return x, torch.stack(hs, 1), torch.stack(cs, 1)
