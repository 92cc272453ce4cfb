"""Greedy transducer search, label by label over all utterances at once."""

from __future__ import annotations

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis, where_rows
from todm_sb.nnet.transducer import Transducer

# Frames looked at together for the next label of each utterance.
WINDOW = 16


@torch.no_grad()
def greedy_search(
    model: Transducer, encoded: Tensor, n_frames: Tensor, max_symbols: int = 5
) -> list[Hypothesis]:
    """The most probable symbol at each node, from the lattice's corner to its end.

    The predictor changes only with a label. So each turn looks, in every utterance at once, over
    the next frames for the first one whose best symbol is a label, goes there, and runs the
    predictor once: turns grow with labels, not with frames. Padded frames are never looked at,
    hence an utterance reads the same in any batch.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), encoder output.
        n_frames: (batch,), integer frames of each utterance.
        max_symbols: labels a frame at most; then the next frame follows as after a blank. It
            bounds the turns.

    Returns:
        One hypothesis an utterance.
    """
    batch, T = encoded.shape[:2]
    projected = model.joiner.project_encoder(encoded)
    window = torch.arange(min(WINDOW, T), device=encoded.device)
    rows = torch.arange(batch, device=encoded.device)
    last = torch.full((batch, 1), model.blank, device=encoded.device)
    outputs, state = model.predictor(last)
    outputs = model.joiner.project_predictor(outputs)
    frame = torch.zeros_like(n_frames)
    emitted_here = torch.zeros_like(n_frames)
    turns = []
    while bool((frame < n_frames).any()):
        ahead = frame.unsqueeze(1) + window
        logits = model.joiner(projected[rows.unsqueeze(1), ahead.clamp(max=T - 1)], outputs)
        is_label = (logits.argmax(-1) != model.blank) & (ahead < n_frames.unsqueeze(1))
        is_label[:, 0] &= emitted_here < max_symbols
        emits = is_label.any(1)
        offset = is_label.long().argmax(1)
        chosen = logits[rows, offset]
        label = chosen.argmax(-1)
        log_prob = chosen.float().log_softmax(-1)[rows, label]
        turns.append((emits, label, frame + offset, log_prob))

        emitted_here = torch.where(emits, torch.where(offset == 0, emitted_here, 0) + 1, 0)
        frame = torch.where(emits, frame + offset, frame + len(window))
        if bool(emits.any()):
            last = torch.where(emits, label, last[:, 0]).unsqueeze(1)
            new_outputs, new_state = model.predictor(last, state)
            new_outputs = model.joiner.project_predictor(new_outputs)
            outputs = where_rows(emits, new_outputs, outputs)
            state = tuple(where_rows(emits, n, s) for n, s in zip(new_state, state, strict=True))
    return _hypotheses(turns, batch)


def _hypotheses(turns: list[tuple[Tensor, ...]], batch: int) -> list[Hypothesis]:
    hypotheses = [Hypothesis([], [], []) for _ in range(batch)]
    for turn in turns:
        for i, (emits, label, frame, log_prob) in enumerate(
            zip(*(x.tolist() for x in turn), strict=True)
        ):
            if emits:
                hypotheses[i].tokens.append(label)
                hypotheses[i].frames.append(frame)
                hypotheses[i].log_probs.append(log_prob)
    return hypotheses
