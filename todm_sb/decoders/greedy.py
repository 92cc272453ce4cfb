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
    batch, device = len(encoded), encoded.device
    projected = networks.project_encoder(encoded)
    outputs, predictor = state.outputs.clone(), tuple(s.clone() for s in state.predictor)
    # Where each utterance stands is known here and not on the device: whether it found a label
    # has to be known here in each turn anyhow.
    ends = n_frames.tolist()
    frame, emitted_here = [0] * batch, [0] * batch
    turns = []
    while running := [i for i in range(batch) if frame[i] < ends[i]]:
        window = max(NODES // len(running), MIN_WINDOW)
        spans = {i: range(frame[i], min(frame[i] + window, ends[i])) for i in running}
        nodes = torch.tensor([(i, t) for i, span in spans.items() for t in span], device=device)
        rows, frames = nodes.unbind(1)
        logits = networks.join(projected[rows, frames].unsqueeze(1), outputs[rows].unsqueeze(1))
        logits = logits.flatten(0, 2)
        is_label = logits.amax(-1) > logits[:, networks.blank]
        first = _first_labels(is_label.tolist(), spans)
        for i, span in spans.items():
            t = first[i].frame if i in first else span.stop
            emitted_here[i] = (i in first) + (emitted_here[i] if t == frame[i] else 0)
            frame[i] = t
            if emitted_here[i] == max_symbols:
                frame[i], emitted_here[i] = t + 1, 0
        if not first:
            continue
        chosen = logits[[label.node for label in first.values()]]
        labels = chosen.argmax(-1)
        log_probs = chosen.float().log_softmax(-1).gather(1, labels.unsqueeze(1)).squeeze(1)
        turns.append((first, labels, log_probs))
        rows = torch.tensor(list(first), device=device)
        outputs[rows], new = networks.predict(labels, tuple(s[rows] for s in predictor))
        for s, s_new in zip(predictor, new, strict=True):
            s[rows] = s_new
    after = GreedyState(outputs, predictor, state.n_frames + n_frames)
    return _hypotheses(turns, state.n_frames.tolist()), after


class _FirstLabel(NamedTuple):
    """The frame of an utterance's next label, and which of the nodes looked at has it."""

    frame: int
    node: int


def _first_labels(is_label: list[bool], spans: dict[int, range]) -> dict[int, _FirstLabel]:
    """The first label of each utterance that has one.

    Args:
        is_label: of the nodes, utterance after utterance.
        spans: the frames of each utterance's nodes.
    """
    first, begin = {}, 0
    for i, span in spans.items():
        ahead = is_label[begin : begin + len(span)]
        if True in ahead:
            offset = ahead.index(True)
            first[i] = _FirstLabel(span[offset], begin + offset)
        begin += len(span)
    return first


def _hypotheses(
    turns: list[tuple[dict[int, _FirstLabel], Tensor, Tensor]], frames_before: list[int]
) -> list[Hypothesis]:
    """Sorts what was emitted in each turn by utterance."""
    hypotheses = [Hypothesis([], [], []) for _ in frames_before]
    if not turns:
        return hypotheses
    first, labels, log_probs = zip(*turns, strict=True)
    places = [(i, label.frame) for turn in first for i, label in turn.items()]
    columns = torch.cat(labels).tolist(), torch.cat(log_probs).tolist()
    for (i, frame), label, log_prob in zip(places, *columns, strict=True):
        hypotheses[i].tokens.append(label)
        hypotheses[i].frames.append(frames_before[i] + frame)
        hypotheses[i].log_probs.append(log_prob)
    return hypotheses
