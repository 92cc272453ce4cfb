"""Greedy transducer search, label by label over all utterances at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from todm_sb.nnet.transducer import Transducer

# Frames looked at together for the next label of each utterance.
WINDOW = 16


@dataclass(frozen=True)
class Hypothesis:
    """What was read in one utterance.

    Args:
        tokens: label ids.
        frames: the encoder frame at which each label was emitted.
        log_probs: log-probability of each label at its frame.
    """

    tokens: list[int]
    frames: list[int]
    log_probs: list[float]


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
            outputs = _where(emits, new_outputs, outputs)
            state = tuple(_where(emits, n, s) for n, s in zip(new_state, state, strict=True))
    return _hypotheses(turns, batch)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` in the chosen rows of axis 0, ``old`` in the others."""
    return torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)


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


class TransducerSearcher(nn.Module):
    """Greedy search with the call and return shape of SpeechBrain's ``TransducerBeamSearcher``.

    Args:
        model: predictor and joiner are used.
        max_symbols: labels a frame at most.
    """

    def __init__(self, model: Transducer, max_symbols: int = 5) -> None:
        super().__init__()
        self.model = model
        self.max_symbols = max_symbols

    def forward(
        self, encoded: Tensor, wav_lens: Tensor | None = None
    ) -> tuple[list[list[int]], Tensor, None, None]:
        """Searches a batch.

        Args:
            encoded: (batch, T, d_model); frames that are exactly zero at an utterance's end are
                padding, as :class:`todm_sb.nnet.encoder.MHSSMEncoder` leaves them.
            wav_lens: (batch,), lengths as fractions of T, or None. A fraction gives the length
                only to within a frame; the zero frames make it exact.

        Returns:
            Label ids of each utterance, the mean over utterances of the labels' joint
            probability, and None twice (no n-best list).
        """
        hypotheses = greedy_search(
            self.model, encoded, padded_lengths(encoded, wav_lens), self.max_symbols
        )
        scores = torch.tensor([sum(h.log_probs) for h in hypotheses])
        return [h.tokens for h in hypotheses], scores.exp().mean(), None, None


def padded_lengths(encoded: Tensor, wav_lens: Tensor | None = None) -> Tensor:
    """Frames of each utterance: up to the last that is not all zero, within the fraction given.

    Args:
        encoded: (batch, T, d_model).
        wav_lens: (batch,), fractions of T, or None.

    Returns:
        (batch,), integers.
    """
    T = encoded.shape[1]
    position = torch.arange(1, T + 1, device=encoded.device)
    n_frames = ((encoded != 0).any(-1) * position).amax(1)
    if wav_lens is None:
        return n_frames
    return torch.minimum(n_frames, (wav_lens * T).long() + 1)
