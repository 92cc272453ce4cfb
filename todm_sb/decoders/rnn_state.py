"""Recurrent states of PyTorch and SpeechBrain as tensors with the batch first, and back."""

from __future__ import annotations

from torch import Tensor

from todm_sb.nnet.predictor import State

# (layers, batch, width), a tuple of such (LSTM), or None where nothing is recurrent.
Hidden = Tensor | tuple[Tensor, ...] | None


def batch_first(hidden: Hidden) -> State:
    """Each tensor as (batch, layers, width), so that searches select hypotheses on axis 0."""
    if hidden is None:
        return ()
    tensors = (hidden,) if isinstance(hidden, Tensor) else hidden
    return tuple(h.transpose(0, 1) for h in tensors)


def layers_first(state: State | None) -> Hidden:
    """Undoes :func:`batch_first`; None, the state before the first label, stays None."""
    if not state:
        return None
    tensors = tuple(s.transpose(0, 1).contiguous() for s in state)
    return tensors if len(tensors) > 1 else tensors[0]
