"""Greedy transducer search, label by label over all utterances at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.decoders.greedy_alone import greedy_alone
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
    if len(encoded) == 1:
        return _chunk_of_one(networks, encoded, n_frames, state, max_symbols)
    outputs, predictor = state.outputs.clone(), tuple(s.clone() for s in state.predictor)
    projected, n_frames = networks.project_encoder(encoded), n_frames.to(encoded.device)
    here = _Places.initial(n_frames)
    n_running, longest = int((n_frames > 0).sum()), encoded.shape[1]
    found: list[tuple[Tensor, ...]] = []
    while n_running:
        if n_running < len(here.rows):
            here = here.select(first_places(here.left() > 0, n_running))
        ahead = here.ahead(min(longest, max(NODES // n_running, MIN_WINDOW)))  # (running, window)
        at = here.rows.unsqueeze(1), ahead.clamp(max=encoded.shape[1] - 1)
        logits = networks.join(projected[at], outputs[here.rows].unsqueeze(1)).squeeze(2)
        is_label = logits.amax(-1) > logits[..., networks.blank]
        # The first of several largest ones, hence the first label.
        has_label, first = (is_label & (ahead < here.ends.unsqueeze(1))).max(1)
        frame = here.frame + torch.where(has_label, first, ahead.shape[1])
        rows, here = here.rows, here.go_to(frame, has_label, max_symbols)
        # The only time in a turn that the host waits for the device.
        left = here.left()
        figures = (left > 0).sum(), left.max(), has_label.sum()
        n_running, longest, n_found = torch.stack(figures).tolist()
        if not n_found:
            continue
        among = first_places(has_label, n_found)
        rows, chosen = rows[among], logits[among, first[among]]
        labels = chosen.argmax(-1)
        log_probs = chosen.float().log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
        found.append((rows, labels, state.n_frames[rows] + frame[among], log_probs))
        outputs[rows], new = networks.predict(labels, tuple(s[rows] for s in predictor))
        for s, s_new in zip(predictor, new, strict=True):
            s[rows] = s_new
    after = GreedyState(outputs, predictor, state.n_frames + n_frames)
    return _hypotheses(found, len(encoded)), after


def _chunk_of_one(
    networks: SearchNetworks,
    encoded: Tensor,
    n_frames: Tensor,
    state: GreedyState,
    max_symbols: int,
) -> tuple[list[Hypothesis], GreedyState]:
    """:func:`greedy_chunk` of a single utterance."""
    n_frames = n_frames.to(encoded.device)
    n_new, begin = torch.cat([n_frames, state.n_frames]).tolist()
    frames = networks.project_encoder(encoded[:, :n_new])
    found, outputs, predictor = greedy_alone(
        networks, frames, state.outputs, state.predictor, max_symbols
    )
    found.frames[:] = [begin + frame for frame in found.frames]
    return [found], GreedyState(outputs, predictor, state.n_frames + n_frames)


class _Places(NamedTuple):
    """Where some utterances stand; every tensor is (utterances,).

    Args:
        rows: of the batch.
        ends: their integer frames.
        frame: the next to look at.
        emitted: labels there so far.
    """

    rows: Tensor
    ends: Tensor
    frame: Tensor
    emitted: Tensor

    @classmethod
    def initial(cls, ends: Tensor) -> _Places:
        """All of a batch, at the beginning."""
        zeros = torch.zeros_like(ends)
        return cls(torch.arange(len(ends), device=ends.device), ends, zeros, zeros)

    def left(self) -> Tensor:
        """Frames up to the end; 0 or less where there is none."""
        return self.ends - self.frame

    def select(self, among: Tensor) -> _Places:
        """Some of them."""
        return _Places(*(x[among] for x in self))

    def ahead(self, window: int) -> Tensor:
        """(utterances, window), the next frames."""
        return self.frame.unsqueeze(1) + torch.arange(window, device=self.rows.device)

    def go_to(self, frame: Tensor, has_label: Tensor, max_symbols: int) -> _Places:
        """The same at other frames, or behind them where these have all the labels they may.

        Args:
            frame: of each.
            has_label: whether it emits a label there.
            max_symbols: labels a frame at most.
        """
        emitted = self.emitted * (frame == self.frame) + has_label
        full = emitted == max_symbols
        return self._replace(frame=frame + full, emitted=emitted.masked_fill(full, 0))


def _hypotheses(found: list[tuple[Tensor, ...]], batch: int) -> list[Hypothesis]:
    """Sorts what was emitted in each turn, (row, label, frame, log-probability), by utterance."""
    hypotheses = [Hypothesis([], [], []) for _ in range(batch)]
    columns = [torch.cat(column).tolist() for column in zip(*found, strict=True)]
    for row, label, frame, log_prob in zip(*columns, strict=True):
        hypotheses[row].tokens.append(label)
        hypotheses[row].frames.append(frame)
        hypotheses[row].log_probs.append(log_prob)
    return hypotheses
