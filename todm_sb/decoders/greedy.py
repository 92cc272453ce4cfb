"""Greedy transducer search, label by label over all utterances at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.networks import SearchNetworks, search_networks
from todm_sb.decoders.selection import first_places
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
        n_frames: (batch,), frames searched.
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
        if device is None and isinstance(model, Transducer):
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
        max_symbols: labels a frame at most, at least 1; then the next frame follows as after a
            blank. It bounds the turns.

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
    hence an utterance has the same labels in any batch.

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
    outputs, predictor = state.outputs.clone(), tuple(s.clone() for s in state.predictor)
    projected = networks.project_encoder(encoded)
    search = _Frames(n_frames.to(encoded.device), max_symbols)
    n_running = int((n_frames > 0).sum())
    found: list[tuple[Tensor, ...]] = []
    while n_running:
        rows = first_places(search.running(), n_running)
        ahead, own = search.ahead(rows, max(NODES // n_running, MIN_WINDOW))
        at = ahead.clamp(max=encoded.shape[1] - 1)
        logits = networks.join(projected[rows.unsqueeze(1), at], outputs[rows].unsqueeze(1))
        logits = logits.squeeze(2)  # (running, window, V)
        is_label = (logits.amax(-1) > logits[..., networks.blank]) & own
        has_label = search.go_on(rows, ahead, is_label)
        # The only time in a turn that the host waits for the device.
        n_running, n_found = torch.stack([search.running().sum(), has_label.sum()]).tolist()
        if not n_found:
            continue
        among = first_places(has_label, n_found)
        rows, first = rows[among], is_label[among].byte().argmax(1)
        chosen = logits[among, first]
        labels = chosen.argmax(-1)
        log_probs = chosen.float().log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
        found.append((rows, labels, state.n_frames[rows] + ahead[among, first], log_probs))
        outputs[rows], new = networks.predict(labels, tuple(s[rows] for s in predictor))
        for s, s_new in zip(predictor, new, strict=True):
            s[rows] = s_new
    after = GreedyState(outputs, predictor, state.n_frames + n_frames)
    return _hypotheses(found, len(encoded)), after


class _Frames:
    """Where each utterance stands.

    Args:
        ends: (batch,), integer frames.
        max_symbols: labels a frame at most.
    """

    def __init__(self, ends: Tensor, max_symbols: int) -> None:
        self.ends = ends
        self.max_symbols = max_symbols
        self.frame, self.emitted_here = torch.zeros_like(ends), torch.zeros_like(ends)

    def running(self) -> Tensor:
        """(batch,), which utterances are not at their end."""
        return self.frame < self.ends

    def ahead(self, rows: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """(rows, window), the next frames, and which of them the utterance has."""
        ahead = self.frame[rows].unsqueeze(1) + torch.arange(window, device=rows.device)
        return ahead, ahead < self.ends[rows].unsqueeze(1)

    def go_on(self, rows: Tensor, ahead: Tensor, is_label: Tensor) -> Tensor:
        """Goes to the first label of each, or behind what was looked at.

        Args:
            rows: (rows,).
            ahead: of :meth:`ahead`.
            is_label: (rows, window).

        Returns:
            (rows,), which of them have a label.
        """
        has_label = is_label.any(1)
        first = ahead.gather(1, is_label.byte().argmax(1, keepdim=True)).squeeze(1)
        frame = torch.where(has_label, first, ahead[:, -1] + 1)
        stays = frame == self.frame[rows]
        emitted = torch.where(stays, self.emitted_here[rows], 0) + has_label
        full = emitted == self.max_symbols
        self.frame[rows] = frame + full
        self.emitted_here[rows] = emitted.masked_fill(full, 0)
        return has_label


def _hypotheses(found: list[tuple[Tensor, ...]], batch: int) -> list[Hypothesis]:
    """Sorts what was emitted in each turn, (row, label, frame, log-probability), by utterance."""
    hypotheses = [Hypothesis([], [], []) for _ in range(batch)]
    columns = [torch.cat(column).tolist() for column in zip(*found, strict=True)]
    for row, label, frame, log_prob in zip(*columns, strict=True):
        hypotheses[row].tokens.append(label)
        hypotheses[row].frames.append(frame)
        hypotheses[row].log_probs.append(log_prob)
    return hypotheses
