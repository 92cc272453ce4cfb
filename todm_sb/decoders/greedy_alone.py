"""Greedy transducer search of a single utterance: no masks, no gathers."""

from __future__ import annotations

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.networks import SearchNetworks
from todm_sb.nnet.predictor import State

# Frames that are looked at after a label, and at most. A turn without a label doubles them: turns
# grow with labels and not with silence, nodes computed in vain with what was needed. On an
# accelerator turns are what costs, so that it begins with the most.
FIRST_FRAMES, MOST_FRAMES = 8, 128


def greedy_alone(
    networks: SearchNetworks, frames: Tensor, outputs: Tensor, state: State, max_symbols: int
) -> tuple[Hypothesis, Tensor, State]:
    """What :func:`todm_sb.decoders.greedy.greedy_chunk` does, of a batch of one.

    The host knows where the search stands from the one result that it reads in a turn, hence
    takes parts of tensors by slices.

    Args:
        networks: predictor and joiner are used.
        frames: (1, T, d_encoder), projected; T may be 0.
        outputs: (1, d_predictor), projected predictor outputs after the labels so far.
        state: the predictor's state after them.
        max_symbols: labels a frame at most.

    Returns:
        The labels, with frames counted from the first of these, and the next outputs and state.
    """
    first_frames = FIRST_FRAMES if frames.device.type == "cpu" else MOST_FRAMES
    n_frames, window, frame, emitted = frames.shape[1], first_frames, 0, 0
    labels, at_frames, log_probs = [], [], []
    while frame < n_frames:
        seen = frames[:, frame : frame + window]
        logits = networks.join(seen, outputs.unsqueeze(1))[0, :, 0]  # (frames, V)
        highest, best = logits.max(-1)
        # The only time in a turn that the host waits for the device.
        is_label = (highest > logits[:, networks.blank]).tolist()
        if True not in is_label:
            frame, emitted = frame + len(is_label), 0
            window = min(2 * window, MOST_FRAMES)
            continue
        step = is_label.index(True)
        label = best[step : step + 1]
        outputs, state = networks.predict(label, state)
        frame, emitted = frame + step, emitted * (step == 0) + 1
        labels.append(label)
        at_frames.append(frame)
        log_probs.append(logits[step].float().log_softmax(-1).gather(0, label))
        if emitted == max_symbols:
            frame, emitted = frame + 1, 0
        window = first_frames
    columns = [torch.cat(column).tolist() if column else [] for column in (labels, log_probs)]
    return Hypothesis(columns[0], at_frames, columns[1]), outputs, state
