"""Prediction networks of the transducer: what the labels so far say about the next.

Both start from a blank as the start symbol and share one interface: ``forward(labels, state)``
returns outputs and the state after them, a tuple of tensors with the batch as *first* axis, so
that searches select and repeat hypotheses by indexing axis 0. ``step`` does the same for one label.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.dropout import dropout
from todm_sb.nnet.lstm_step import lstm_step

State = tuple[Tensor, ...]


def start_with_blank(labels: Tensor, blank: int) -> Tensor:
    """(batch, U) -> (batch, U + 1) with a blank as the start symbol in front."""
    return F.pad(labels, (1, 0), value=blank)


def _lstm_precision(device: torch.device) -> AbstractContextManager:
    """Float32 in place of bfloat16 autocast, on processors that oneDNN has no such LSTM for:
    PyTorch asks it for one all the same, and fails."""
    lacking = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in (
        "AVX2",
        "DEFAULT",
    )
    return torch.autocast("cpu", enabled=False) if lacking else nullcontext()


class LSTMPredictor(nn.Module):
    """Embedding and LSTM, as in RNN-T (Graves 2012, arXiv:1211.3711).

    Args:
        vocab_size: labels with blank.
        d_model: width of the embedding and the LSTM.
        n_layers: LSTM layers.
        dropout: probability on the embedding and the output.
        blank: id of blank.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        n_layers: int = 1,
        dropout: float = 0.0,
        blank: int = 0,
    ) -> None:
        super().__init__()
        self.blank = blank
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=blank)
        self.lstm = nn.LSTM(d_model, d_model, n_layers, batch_first=True)
        self.dropout = dropout

    @property
    def d_model(self) -> int:
        """Width of the output."""
        return self.lstm.hidden_size

    def macs_of_a_label(self) -> int:
        """Multiply-accumulates of one label."""
        weights = (w for name, w in self.lstm.named_parameters() if "weight" in name)
        return sum(w.numel() for w in weights)

    def initial_state(self, batch: int) -> State:
        """The state before the first label."""
        weight = self.embedding.weight
        zeros = weight.new_zeros(batch, self.lstm.num_layers, self.d_model)
        return zeros, zeros

    def forward(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes labels one after another.

        Args:
            labels: (batch, U) integers.
            state: state before them; None for the beginning.

        Returns:
            (batch, U, d_model) and the state after the last label.
        """
        h, c = self.initial_state(len(labels)) if state is None else state
        x = dropout(self.embedding(labels), self.dropout, self.training)
        # The LSTM wants the batch as second axis of its state, and contiguous.
        lstm_state = (h.to(x.dtype).transpose(0, 1), c.to(x.dtype).transpose(0, 1))
        with _lstm_precision(x.device):
            y, (h, c) = self.lstm(x, tuple(s.contiguous() for s in lstm_state))
        y = dropout(y, self.dropout, self.training)
        return y, (h.transpose(0, 1), c.transpose(0, 1))

    def step(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes one label, as searches do: without dropout, and several times faster than
        :meth:`forward`.

        Args:
            labels: (batch,) integers.
            state: state before it; None for the beginning.

        Returns:
            (batch, d_model) and the state after the label.
        """
        h, c = self.initial_state(len(labels)) if state is None else state
        y, h, c = lstm_step(self.lstm, self.embedding(labels), h, c)
        return y, (h, c)


class StatelessPredictor(nn.Module):
    """Embedding and a convolution over the last labels (Ghodsi et al. 2020; icefall's "decoder").

    Args:
        vocab_size: labels with blank.
        d_model: width of the embedding and the output.
        context: number of labels seen.
        dropout: probability on the embedding.
        blank: id of blank.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        context: int = 2,
        dropout: float = 0.0,
        blank: int = 0,
    ) -> None:
        super().__init__()
        self.blank = blank
        self.context = context
        self.embedding = nn.Embedding(vocab_size, d_model, padding_idx=blank)
        self.conv = nn.Conv1d(d_model, d_model, context, groups=d_model, bias=False)
        self.dropout = dropout

    @property
    def d_model(self) -> int:
        """Width of the output."""
        return self.embedding.embedding_dim

    def macs_of_a_label(self) -> int:
        """Multiply-accumulates of one label."""
        return self.conv.weight.numel()

    def initial_state(self, batch: int) -> State:
        """The state before the first label: blanks."""
        device = self.embedding.weight.device
        return (torch.full((batch, self.context - 1), self.blank, device=device),)

    def forward(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes labels; arguments and results as of :meth:`LSTMPredictor.forward`."""
        (past,) = self.initial_state(len(labels)) if state is None else state
        seen = torch.cat([past, labels], dim=1)
        x = dropout(self.embedding(seen), self.dropout, self.training)
        y = F.relu(self.conv(x.transpose(1, 2)).transpose(1, 2))
        return y, (seen[:, seen.shape[1] - self.context + 1 :],)

    def step(self, labels: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Takes one label; arguments and results as of :meth:`LSTMPredictor.step`."""
        (past,) = self.initial_state(len(labels)) if state is None else state
        seen = torch.cat([past, labels.unsqueeze(1)], dim=1)
        x = self.embedding(seen)
        # What the convolution gives at its one place, without what it prepares for many.
        y = F.relu((x * self.conv.weight[:, 0].T).sum(1))
        return y, (seen[:, 1:],)
