"""Modified beam search: one symbol a frame, hypotheses of equal labels merged, batched."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis, where_rows
from todm_sb.nnet.transducer import Transducer

# Multiplier of the rolling hash that tells label sequences apart (odd, so that it loses nothing).
_HASH = 6364136223846793005


@torch.no_grad()
def beam_search(
    model: Transducer, encoded: Tensor, n_frames: Tensor, beam_size: int = 4, nbest: int = 1
) -> list[list[Hypothesis]]:
    """The most probable label sequences under at most one label a frame.

    Where greedy search follows the single best alignment, this sums the alignments of each label
    sequence: it also reads labels whose probability is spread over several frames. Each frame
    takes one call of joiner and predictor for all hypotheses of all utterances together, so the
    search ends after T of them on any model.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), encoder output.
        n_frames: (batch,), integer frames of each utterance; later ones are never looked at.
        beam_size: hypotheses kept.
        nbest: hypotheses returned, ``beam_size`` at most.

    Returns:
        The hypotheses of each utterance, best first; fewer than ``nbest`` where no more exist.

    Raises:
        ValueError: if ``nbest`` exceeds ``beam_size``.
    """
    if not 1 <= nbest <= beam_size:
        raise ValueError(f"nbest ({nbest}) must be in 1..beam_size ({beam_size})")
    batch, T = encoded.shape[:2]
    device = encoded.device
    projected = model.joiner.project_encoder(encoded)
    blanks = torch.full((batch * beam_size, 1), model.blank, device=device)
    outputs, state = model.predictor(blanks)
    outputs = model.joiner.project_predictor(outputs).view(batch, beam_size, -1)
    # One hypothesis to begin with: the empty one.
    scores = torch.full((batch, beam_size), -math.inf, device=device)
    scores[:, 0] = 0
    hashes = torch.zeros(batch, beam_size, dtype=torch.long, device=device)
    steps = []
    first_row = beam_size * torch.arange(batch, device=device).unsqueeze(1)
    for t in range(T):
        log_probs = model.joiner(projected[:, t, None], outputs).float().log_softmax(-1)
        new = _best_extensions(scores, hashes, log_probs, model.blank)
        running = t < n_frames
        stay = torch.arange(beam_size, device=device).expand(batch, -1)
        parent = where_rows(running, new.parent, stay)
        label = where_rows(running, new.label, torch.full_like(new.label, model.blank))
        scores = where_rows(running, new.scores, scores)
        hashes = where_rows(running, new.hashes, hashes)
        steps.append((parent, label, where_rows(running, new.log_probs, new.log_probs * 0)))

        rows = (first_row + parent).flatten()
        outputs = outputs.flatten(0, 1)[rows]
        state = tuple(s[rows] for s in state)
        emits = label.flatten() != model.blank
        new_outputs, new_state = model.predictor(label.view(-1, 1), state)
        new_outputs = model.joiner.project_predictor(new_outputs).squeeze(1)
        outputs = where_rows(emits, new_outputs, outputs).view(batch, beam_size, -1)
        state = tuple(where_rows(emits, n, s) for n, s in zip(new_state, state, strict=True))
    return _trace_back(steps, scores, nbest, model.blank)


class _Extensions:
    """The best extensions of each utterance's hypotheses: (batch, beam_size) tensors each.

    Args:
        scores: log-probability, equal label sequences added up.
        hashes: of the label sequences.
        parent: index of the hypothesis that was extended.
        label: the new label, or blank.
        log_probs: of the new symbol.
    """

    def __init__(
        self, scores: Tensor, hashes: Tensor, parent: Tensor, label: Tensor, log_probs: Tensor
    ) -> None:
        self.scores = scores
        self.hashes = hashes
        self.parent = parent
        self.label = label
        self.log_probs = log_probs


def _best_extensions(scores: Tensor, hashes: Tensor, log_probs: Tensor, blank: int) -> _Extensions:
    """Extends by one symbol, merges equal label sequences, keeps the best.

    Args:
        scores: (batch, beam_size).
        hashes: (batch, beam_size).
        log_probs: (batch, beam_size, V) of the next symbol.
        blank: id of blank.
    """
    beam_size, vocab_size = log_probs.shape[1:]
    # A sequence is reached by blank from itself and by its last label from its front; twice the
    # beam holds both ways of as many sequences as the beam keeps.
    count = min(2 * beam_size, beam_size * vocab_size)
    joint = (scores.unsqueeze(-1) + log_probs).flatten(1)
    best, index = joint.topk(count, dim=1)
    parent, label = index // vocab_size, index % vocab_size
    symbol_log_probs = log_probs.flatten(1).gather(1, index)
    fronts = hashes.gather(1, parent)
    reached = torch.where(label == blank, fronts, fronts * _HASH + label)
    same = (reached.unsqueeze(1) == reached.unsqueeze(2)) & best.isfinite().unsqueeze(1)
    merged = best.unsqueeze(1).masked_fill(~same, -math.inf).logsumexp(-1)
    # The best of equal ones stands for all: those after it drop out.
    again = same.tril(-1).any(-1)
    merged = merged.masked_fill(again, -math.inf)
    kept, at = merged.topk(beam_size, dim=1)
    return _Extensions(
        kept,
        reached.gather(1, at),
        parent.gather(1, at),
        label.gather(1, at),
        symbol_log_probs.gather(1, at),
    )


def _trace_back(
    steps: list[tuple[Tensor, Tensor, Tensor]], scores: Tensor, nbest: int, blank: int
) -> list[list[Hypothesis]]:
    """Follows the best hypotheses from the last frame to the first."""
    steps = [tuple(x.tolist() for x in step) for step in steps]
    order = scores.argsort(dim=1, descending=True)[:, :nbest].tolist()
    scores = scores.tolist()
    found: list[list[Hypothesis]] = []
    for b, ranked in enumerate(order):
        found.append([])
        for k in ranked:
            if scores[b][k] == -math.inf:
                continue
            trail, at = [], k
            for t in range(len(steps) - 1, -1, -1):
                parent, label, log_probs = (x[b][at] for x in steps[t])
                if label != blank:
                    trail.append((label, t, log_probs))
                at = parent
            tokens, frames, log_probs = (
                map(list, zip(*trail[::-1], strict=True)) if trail else ([], [], [])
            )
            found[-1].append(Hypothesis(tokens, frames, log_probs, scores[b][k]))
    return found
