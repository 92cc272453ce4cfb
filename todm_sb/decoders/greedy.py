"""Greedy transducer search, label by label over all utterances at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.networks import SearchNetworks, search_networks
from todm_sb.nnet.predictor import State
from todm_sb.nnet.transducer import Transducer

# Lattice nodes looked at in a turn, shared out among the utterances that still run, and frames of
# an utterance at least. More finds the next label in fewer turns, but computes more in vain.
NODES = 128
MIN_WINDOW = 8


class GreedyState(NamedTuple):
    """Where the search of each stream stands; every tensor has the batch first.

    Args:
        outputs: (batch, d_predictor), projected predictor outputs after the labels so far.
        predictor: the predictor's state after them.
        n_frames: (batch,), frames read.
    """

    outputs: Tensor
    predictor: State
    n_frames: Tensor

    @classmethod
    @torch.no_grad()
    def initial(
        cls,
        model: Transducer | SearchNetworks,
        batch: int,
        device: torch.device | str | None = None,
    ) -> GreedyState:
        """Before the first frame; the device is by default that of a :class:`Transducer`."""
        networks = search_networks(model)
        if device is None:
            device = model.joiner.output.weight.device
        outputs, state = networks.predict(torch.full((batch,), networks.blank, device=device))
        return cls(outputs, state, torch.zeros(batch, dtype=torch.long, device=device))


def greedy_search(
    model: Transducer | SearchNetworks, encoded: Tensor, n_frames: Tensor, max_symbols: int = 5
) -> list[Hypothesis]:
    """The most probable symbol at each node, from the lattice's corner to its end.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), encoder output.
        n_frames: (batch,), integer frames of each utterance.
        max_symbols: labels a frame at most; then the next frame follows as after a blank. It
            bounds the turns.

    Returns:
        One hypothesis an utterance.
    """
    state = GreedyState.initial(model, len(encoded), encoded.device)
    return greedy_chunk(model, encoded, n_frames, state, max_symbols)[0]


@torch.no_grad()
def greedy_chunk(
    model: Transducer | SearchNetworks,
    encoded: Tensor,
    n_frames: Tensor,
    state: GreedyState,
    max_symbols: int = 5,
) -> tuple[list[Hypothesis], GreedyState]:
    """:func:`greedy_search` chunk by chunk: any chunking finds the same labels.

    The predictor changes only with a label. So each turn looks, in every utterance at once, over
    the next frames for the first one whose best symbol is a label, goes there, and runs the
    predictor once: turns grow with labels, not with frames. Padded frames are never looked at,
    hence an utterance reads the same in any batch.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), the next frames; T may be 0.
        n_frames: (batch,), how many of them are each stream's.
        state: what the last call, or :meth:`GreedyState.initial`, returned.
        max_symbols: labels a frame at most.

    Returns:
        The new labels of each stream, with frames counted from its beginning, and the next state.
    """
    networks = search_networks(model)
    batch, T = encoded.shape[:2]
    projected = networks.project_encoder(encoded)
    n_frames = n_frames.to(encoded.device)
    outputs, predictor = state.outputs.clone(), tuple(s.clone() for s in state.predictor)
    frame = torch.zeros_like(n_frames)
    emitted_here = torch.zeros_like(n_frames)
    turns = []
    while len(rows := (frame < n_frames).nonzero().squeeze(1)):
        window = min(max(NODES // len(rows), MIN_WINDOW), T)
        ahead = frame[rows].unsqueeze(1) + torch.arange(window, device=frame.device)
        nodes = projected[rows.unsqueeze(1), ahead.clamp(max=T - 1)]
        logits = networks.join(nodes, outputs[rows].unsqueeze(1)).squeeze(2)
        is_label = logits.amax(-1) > logits[..., networks.blank]
        is_label &= ahead < n_frames[rows].unsqueeze(1)
        is_label[:, 0] &= emitted_here[rows] < max_symbols
        # The first label of each utterance, where there is one.
        emits = is_label.any(1)
        offset = torch.where(emits, is_label.long().argmax(1), window)
        frame[rows] += offset
        emitted_here[rows] = torch.where(offset == 0, emitted_here[rows], 0) + emits
        (emitting,) = emits.nonzero(as_tuple=True)
        if len(emitting) == 0:
            continue
        chosen = logits[emitting, offset[emitting]]
        label = chosen.argmax(-1)
        log_prob = chosen.float().log_softmax(-1).gather(1, label.unsqueeze(1)).squeeze(1)
        rows = rows[emitting]
        turns.append((rows, label, (state.n_frames + frame)[rows], log_prob))
        outputs[rows], new = networks.predict(label, tuple(s[rows] for s in predictor))
        for s, s_new in zip(predictor, new, strict=True):
            s[rows] = s_new
    after = GreedyState(outputs, predictor, state.n_frames + n_frames)
    return _hypotheses(turns, batch), after


def _hypotheses(turns: list[tuple[Tensor, ...]], batch: int) -> list[Hypothesis]:
    """Sorts what was emitted in each turn, (rows, labels, frames, log_probs), by utterance."""
    hypotheses = [Hypothesis([], [], []) for _ in range(batch)]
    columns = (torch.cat(column).tolist() for column in zip(*turns, strict=True))
    for row, label, frame, log_prob in zip(*columns, strict=True):
        hypotheses[row].tokens.append(label)
        hypotheses[row].frames.append(frame)
        hypotheses[row].log_probs.append(log_prob)
    return hypotheses
