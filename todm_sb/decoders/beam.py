"""Modified beam search: one symbol a frame, hypotheses of equal labels merged, batched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.language_model import ShallowFusion
from todm_sb.decoders.networks import SearchNetworks, search_networks
from todm_sb.nnet.predictor import State
from todm_sb.nnet.transducer import Transducer

# Multiplier of the rolling hash that tells label sequences apart (odd, so that it loses nothing).
_HASH = 6364136223846793005


@torch.no_grad()
def beam_search(
    model: Transducer | SearchNetworks,
    encoded: Tensor,
    n_frames: Tensor,
    beam_size: int = 4,
    nbest: int = 1,
    fusion: ShallowFusion | None = None,
) -> list[list[Hypothesis]]:
    """The most probable label sequences under at most one label a frame.

    Where greedy search follows the single best alignment, this sums the alignments of each label
    sequence: it also reads labels whose probability is spread over several frames. Each frame
    takes one call of the joiner for all hypotheses of all utterances together, and one of the
    predictor for those that got a label, so the search ends after T of them on any model.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), encoder output.
        n_frames: (batch,), integer frames of each utterance; later ones are never looked at.
        beam_size: hypotheses kept.
        nbest: hypotheses returned, ``beam_size`` at most.
        fusion: a language model whose scores are added to those of the labels.

    Returns:
        The hypotheses of each utterance, best first; fewer than ``nbest`` where no more exist. A
        network that gives NaN reads nothing, with a score of minus infinity.

    Raises:
        ValueError: if ``nbest`` exceeds ``beam_size``.
    """
    if not 1 <= nbest <= beam_size:
        raise ValueError(f"nbest ({nbest}) must be in 1..beam_size ({beam_size})")
    networks = search_networks(model)
    device = encoded.device
    # Longest first: the utterances that still run are always the first rows.
    lengths, order = n_frames.to(device).sort(descending=True, stable=True)
    lengths = lengths.tolist()
    projected = networks.project_encoder(encoded)[order]
    readers = [networks.predict] + ([fusion.predict] if fusion else [])
    start = torch.full((len(encoded) * beam_size,), networks.blank, device=device)
    memories = [_Memory(read, start) for read in readers]
    # One hypothesis to begin with: the empty one.
    scores = torch.full((len(encoded), beam_size), -math.inf, device=device)
    scores[:, 0] = 0
    hashes = torch.zeros_like(scores, dtype=torch.long)
    ended, steps = [], []
    for t in range(max(lengths, default=0)):
        running = sum(n > t for n in lengths)
        ended.append(scores[running:])
        outputs, *fused = (m.outputs[: running * beam_size] for m in memories)
        outputs = outputs.view(running, beam_size, -1)
        logits = networks.join(projected[:running, t, None], outputs).squeeze(1)
        log_probs = logits.float().log_softmax(-1)
        gains = sum((f.view_as(log_probs) for f in fused), log_probs)
        scores, hashes, step = _best_extensions(
            scores[:running], hashes[:running], log_probs, gains, networks.blank
        )
        steps.append(step)
        for memory in memories:
            memory.extend(step, networks.blank)
    scores = torch.cat([scores, *reversed(ended)])
    found = _trace_back(steps, scores, lengths, nbest, networks.blank)
    return [found[i] for i in order.argsort().tolist()]


class _Step(NamedTuple):
    """How the hypotheses of one frame came about: (running, beam_size) tensors each.

    Args:
        parent: index of the hypothesis that was extended.
        label: the new label, or blank.
        log_prob: of the new symbol, by the transducer alone.
    """

    parent: Tensor
    label: Tensor
    log_prob: Tensor


class _Memory:
    """What the predictor, or a language model, says after the labels of each hypothesis.

    Args:
        read: (labels, state) -> (outputs, state), each tensor with the hypotheses on axis 0.
        start: (rows,), the start symbol.
    """

    def __init__(self, read: Callable[[Tensor, State | None], tuple[Tensor, State]], start: Tensor):
        self.read = read
        self.outputs, self.state = read(start, None)

    def extend(self, step: _Step, blank: int) -> None:
        """Goes over to the hypotheses of the next frame; only those with a new label read it."""
        first_row = step.parent.shape[1] * torch.arange(len(step.parent), device=step.parent.device)
        rows = (first_row.unsqueeze(1) + step.parent).flatten()
        self.outputs = self.outputs[rows]
        self.state = tuple(s[rows] for s in self.state)
        labels = step.label.flatten()
        (emitting,) = (labels != blank).nonzero(as_tuple=True)
        if len(emitting) == 0:
            return
        before = tuple(s[emitting] for s in self.state)
        self.outputs[emitting], after = self.read(labels[emitting], before)
        for s, s_after in zip(self.state, after, strict=True):
            s[emitting] = s_after


def _best_extensions(
    scores: Tensor, hashes: Tensor, log_probs: Tensor, gains: Tensor, blank: int
) -> tuple[Tensor, Tensor, _Step]:
    """Extends by one symbol, merges equal label sequences, keeps the best.

    Args:
        scores: (running, beam_size), log-probabilities.
        hashes: (running, beam_size), of the label sequences.
        log_probs: (running, beam_size, V) of the next symbol.
        gains: the same shape, what the next symbol adds to the score.
        blank: id of blank.

    Returns:
        Scores and hashes of the new hypotheses, and how they came about.
    """
    beam_size, vocab_size = gains.shape[1:]
    # A sequence is reached by blank from itself and by its last label from its front; twice the
    # beam holds both ways of as many sequences as the beam keeps.
    count = min(2 * beam_size, beam_size * vocab_size)
    best, index = (scores.unsqueeze(-1) + gains).flatten(1).topk(count, dim=1)
    parent, label = index // vocab_size, index % vocab_size
    fronts = hashes.gather(1, parent)
    reached = torch.where(label == blank, fronts, fronts * _HASH + label)
    same = (reached.unsqueeze(1) == reached.unsqueeze(2)) & best.isfinite().unsqueeze(1)
    merged = best.unsqueeze(1).masked_fill(~same, -math.inf).logsumexp(-1)
    # The best of equal ones stands for all: those after it drop out.
    merged = merged.masked_fill(same.tril(-1).any(-1), -math.inf)
    kept, at = merged.topk(beam_size, dim=1)
    index = index.gather(1, at)
    step = _Step(parent.gather(1, at), label.gather(1, at), log_probs.flatten(1).gather(1, index))
    return kept, reached.gather(1, at), step


def _trace_back(
    steps: list[_Step], scores: Tensor, lengths: list[int], nbest: int, blank: int
) -> list[list[Hypothesis]]:
    """Follows the best hypotheses of each utterance from its last frame to the first.

    Args:
        steps: of each frame.
        scores: (batch, beam_size) at the end of each utterance.
        lengths: of the utterances, longest first.
        nbest: hypotheses to return.
        blank: id of blank.
    """
    beam_size = scores.shape[1]
    # One transfer of each kind; a frame's rows begin where those of the frames before it end.
    columns = [
        torch.cat([x.flatten() for x in column]).tolist() for column in zip(*steps, strict=True)
    ]
    begins = [0, *itertools.accumulate(step.label.numel() for step in steps)]
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, :nbest].tolist()
    found: list[list[Hypothesis]] = []
    for b, (totals, best) in enumerate(zip(scores.tolist(), ranked, strict=True)):
        found.append([])
        for at in best:
            if totals[at] == -math.inf:
                continue
            trail, k = [], at
            for t in reversed(range(lengths[b])):
                parent, label, log_prob = (c[begins[t] + beam_size * b + k] for c in columns)
                if label != blank:
                    trail.append((label, t, log_prob))
                k = parent
            tokens, frames, log_probs = zip(*trail[::-1], strict=True) if trail else ((), (), ())
            found[-1].append(Hypothesis(list(tokens), list(frames), list(log_probs), totals[at]))
    # No number is the best of a network that gives none: it read nothing.
    return [hypotheses or [Hypothesis([], [], [], -math.inf)] for hypotheses in found]
