"""Beam search over all utterances at once: hypotheses of equal labels are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from todm_sb.decoders.fusion import Fusion
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.decoders.networks import SearchNetworks, search_networks
from todm_sb.decoders.selection import first_places
from todm_sb.decoders.trails import Trails
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
    fusions: Sequence[Fusion] = (),
    max_symbols: int = 1,
    state_beam: float = 2.3,
) -> list[list[Hypothesis]]:
    """The most probable label sequences under at most so many labels a frame.

    Where greedy search follows the single best alignment, this sums the alignments of each label
    sequence. With ``max_symbols=1`` it is the modified beam search of icefall: a label, like
    blank, leads to the next frame, which takes one call of the joiner for all hypotheses of all
    utterances together and one of the predictor for those that got a label. With more it is
    time-synchronous decoding (Saon et al., ICASSP 2020): a label stays at its frame, where only
    hypotheses within ``state_beam`` of the best go on; the last label allowed leads to the next
    frame. Either way the search ends on any model.

    Args:
        model: predictor and joiner are used.
        encoded: (batch, T, d_model), encoder output.
        n_frames: (batch,), integer frames of each utterance; later ones are never looked at.
        beam_size: hypotheses kept.
        nbest: hypotheses returned, ``beam_size`` at most.
        fusions: language models, hot words: their scores are added to those of the labels.
        max_symbols: labels a frame at most, at least 1.
        state_beam: how far below the best hypothesis that is done with a frame, in
            log-probability, another is followed that stays there.

    Returns:
        The hypotheses of each utterance, best first; fewer than ``nbest`` where no more exist. A
        network that gives NaN finds nothing, with a score of minus infinity.

    Raises:
        ValueError: if ``nbest`` exceeds ``beam_size``.
    """
    if not 1 <= nbest <= beam_size:
        raise ValueError(f"nbest ({nbest}) must be in 1..beam_size ({beam_size})")
    networks = search_networks(model)
    # Longest first: the utterances that still run are always the first rows.
    falling, order = n_frames.sort(descending=True, stable=True)
    lengths = falling.tolist()
    projected = networks.project_encoder(encoded)[order]
    search = _Search(networks, fusions, max_symbols, state_beam)
    beam = search.start(len(encoded), beam_size, encoded.device)
    ended = []
    for t in range(max(lengths, default=0)):
        running = sum(n > t for n in lengths)
        ended.append(search.finish(_Beam(*(x[running:] for x in beam))))
        beam = search.advance(_Beam(*(x[:running] for x in beam)), projected[:running, t, None], t)
    beam = search.finish(beam)
    beam = _Beam(*map(torch.cat, zip(beam, *reversed(ended), strict=True)))
    found = search.trails.best(beam.scores, beam.trails, nbest)
    return [found[i] for i in order.argsort().tolist()]


class _Beam(NamedTuple):
    """Hypotheses, (N utterances, H hypotheses) each; one with a score of minus infinity is none.

    Args:
        scores: log-probabilities.
        hashes: of the label sequences.
        trails: the label sequences, see :class:`todm_sb.decoders.trails.Trails`.
        rows: of the memories, whose states are those after the labels before the pending one.
        pending: a last label that the memories' states do not hold yet, or blank.
    """

    scores: Tensor
    hashes: Tensor
    trails: Tensor
    rows: Tensor
    pending: Tensor

    def merged(self, count: int) -> _Beam:
        """The best label sequences, each with the sum of its hypotheses."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)  # (N, H)
        scores, hashes, *others = (x.gather(1, order) for x in self)  # (N, H) each
        same = hashes.unsqueeze(1) == hashes.unsqueeze(2)  # (N, H, H)
        same = same & scores.isfinite().unsqueeze(1)
        sums = scores.unsqueeze(1).masked_fill(~same, -math.inf).logsumexp(-1)  # (N, H)
        # The best of equal ones stands for all: those after it drop out.
        sums = sums.masked_fill(same.tril(-1).any(-1), -math.inf)
        sums, at = sums.topk(count, dim=1)  # (N, count)
        return _Beam(sums, *(x.gather(1, at) for x in (hashes, *others)))


class _Memory:
    """What the predictor, or a language model, says after the labels of each hypothesis.

    Args:
        predict: (labels, state) -> (outputs, state), each tensor with the hypotheses on axis 0.
        start: (rows,), the start symbol.
    """

    def __init__(
        self, predict: Callable[[Tensor, State | None], tuple[Tensor, State]], start: Tensor
    ) -> None:
        self.predict = predict
        self.outputs, self.state = predict(start, None)

    def extend(self, rows: Tensor, labels: Tensor) -> None:
        """Takes a label after each of these rows; the new rows come behind all others."""
        outputs, state = self.predict(labels, tuple(s[rows] for s in self.state))
        self.outputs = torch.cat([self.outputs, outputs])
        self.state = tuple(map(torch.cat, zip(self.state, state, strict=True)))

    def keep(self, rows: Tensor) -> None:
        """Keeps these rows, in this order."""
        self.outputs = self.outputs[rows]
        self.state = tuple(s[rows] for s in self.state)


class _Search:
    """Takes a beam from frame to frame; for the arguments see :func:`beam_search`."""

    def __init__(
        self,
        networks: SearchNetworks,
        fusions: Sequence[Fusion],
        max_symbols: int,
        state_beam: float,
    ) -> None:
        self.networks = networks
        self.fusions = fusions
        self.max_symbols = max_symbols
        self.state_beam = state_beam
        self.trails = Trails()

    def start(self, batch: int, beam_size: int, device: torch.device) -> _Beam:
        """One hypothesis an utterance to begin with: the empty one."""
        blank = torch.full((batch, beam_size), self.networks.blank, device=device)
        predictors = [self.networks.predict, *(fusion.predict for fusion in self.fusions)]
        self.memories = [_Memory(predict, blank.flatten()) for predict in predictors]
        scores = torch.full((batch, beam_size), -math.inf, device=device)
        scores[:, 0] = 0
        # The hash of no labels is not 0, which label 0 would leave as it is.
        ones, rows = torch.ones_like(blank), torch.arange(blank.numel(), device=device)
        return _Beam(scores, ones, -ones, rows.view_as(blank), blank)

    def advance(self, beam: _Beam, frame: Tensor, t: int) -> _Beam:
        """Takes the beam over one frame, (utterances, 1, d_encoder), number t.

        Shapes: N utterances, H hypotheses (the beam), V symbols, k labels of this frame so far.
        """
        beam_size, n_here = beam.scores.shape[1], beam.scores.numel()
        done, here = [], beam  # each field (N, H)
        for _ in range(self.max_symbols - 1):
            log_probs, gains = self._symbols(here, frame, n_here)  # (N, H, V) each
            blank = gains[..., self.networks.blank]  # (N, H), a view
            done.append(here._replace(scores=here.scores + blank))  # k + 1 beams of (N, H)
            blank.fill_(-math.inf)
            here = self._extensions(here, log_probs, gains, beam_size, t)  # (N, H), one label more
            best = torch.cat([x.scores for x in done], dim=1)  # (N, (k + 1) H)
            best = best.topk(beam_size, dim=1).values  # (N, H)
            floor = torch.maximum(best[:, -1:], best[:, :1] - self.state_beam)  # (N, 1)
            out = here.scores <= floor  # (N, H)
            here = here._replace(scores=here.scores.masked_fill(out, -math.inf))
            here, n_here = self._predict(here)
            if not n_here:
                break
        else:
            # A sequence is reached by blank from itself and by its last label from its front;
            # twice the beam holds both ways of as many sequences as the beam keeps: (N, 2 H).
            symbols = self._symbols(here, frame, n_here)
            done.append(self._extensions(here, *symbols, 2 * beam_size, t))
        if len(done) == 1 and self.max_symbols > 1:
            return done[0]  # no labels: (N, H)
        columns = zip(*done, strict=True)
        beam = _Beam(*(torch.cat(x, dim=1) for x in columns))  # (N, all of done)
        beam = beam.merged(beam_size)  # (N, H)
        if n_here:  # else no label is pending
            beam, _ = self._predict(beam)
        for memory in self.memories:
            memory.keep(beam.rows.flatten())  # (N H,)
        rows = torch.arange(beam.rows.numel(), device=beam.rows.device)
        return beam._replace(rows=rows.view_as(beam.rows))

    def finish(self, beam: _Beam) -> _Beam:
        """Hypotheses that end after the frame before, with what that adds to their scores."""
        scores, rows = beam.scores, beam.rows.flatten()
        for fusion, memory in zip(self.fusions, self.memories[1:], strict=True):
            final = fusion.final(tuple(s[rows] for s in memory.state))
            scores = scores + final.view_as(scores)
        return beam._replace(scores=scores)

    def _symbols(self, beam: _Beam, frame: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """What the next symbols have: log-probabilities, and what they add to the scores.

        Both are (utterances, hypotheses, V), minus infinity for a hypothesis that is none.

        Args:
            beam: the hypotheses.
            frame: see :meth:`advance`.
            count: how many of them to ask about, those with a score first.
        """
        at = first_places(beam.scores > -math.inf, count)
        rows = beam.rows.flatten()[at]
        outputs, *fused = (memory.outputs[rows] for memory in self.memories)
        utterance = at // beam.scores.shape[1]
        logits = self.networks.join(frame[utterance], outputs.unsqueeze(1)).flatten(0, 2)
        log_probs = logits.float().log_softmax(-1)
        log_probs.masked_fill_(log_probs.isnan(), -math.inf)

        def at_hypotheses(x: Tensor) -> Tensor:
            if count < beam.scores.numel():
                y = x.new_full((beam.scores.numel(), x.shape[-1]), -math.inf)
                y[at] = x
                x = y
            return x.view(*beam.scores.shape, -1)

        gains = at_hypotheses(sum(fused, log_probs))
        return at_hypotheses(log_probs) if fused else gains, gains

    def _extensions(
        self, beam: _Beam, log_probs: Tensor, gains: Tensor, count: int, t: int
    ) -> _Beam:
        """The best hypotheses one symbol longer, in falling order."""
        vocab_size = gains.shape[-1]
        totals = (beam.scores.unsqueeze(-1) + gains).flatten(1)
        scores, index = totals.topk(min(count, totals.shape[1]), dim=1)
        parent, label = index // vocab_size, index % vocab_size
        hashes, trails, rows = (x.gather(1, parent) for x in (beam.hashes, beam.trails, beam.rows))
        longer = self.trails.add(trails, label, log_probs.flatten(1).gather(1, index), t)
        is_blank = label == self.networks.blank
        hashes = torch.where(is_blank, hashes, hashes * _HASH + label)
        return _Beam(scores, hashes, torch.where(is_blank, trails, longer), rows, label)

    def _predict(self, beam: _Beam) -> tuple[_Beam, int]:
        """The same hypotheses, the memories' states those after their last labels; and how many
        there are."""
        alive = beam.scores > -math.inf
        new = (beam.pending != self.networks.blank) & alive
        # The only time in a turn that the host waits for the device.
        n_alive, n_new = torch.stack([alive.sum(), new.sum()]).tolist()
        if not n_new:
            return beam, n_alive
        begin = len(self.memories[0].outputs)
        at, rows = first_places(new, n_new), beam.rows.flatten()
        for memory in self.memories:
            memory.extend(rows[at], beam.pending.flatten()[at])
        behind = torch.arange(begin, begin + n_new, device=rows.device)
        beam = beam._replace(
            rows=rows.index_copy(0, at, behind).view_as(beam.rows),
            pending=torch.full_like(beam.pending, self.networks.blank),
        )
        return beam, n_alive
