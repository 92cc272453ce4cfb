"""Pruning of the transducer lattice (after Kuang et al. 2022, arXiv:2206.13236).

Where alignments pass tells which ``s_range`` consecutive labels of each frame matter: the band, in
which alone the joiner runs. The paper asks a simple joiner that adds logits, which needs no tensor
over lattice nodes and vocabulary and is trained for this alone. The CTC head can be asked as well:
it is a simple joiner whose predictor says nothing. And so can the max subnet's own joiner, if it
looks at the full lattice itself and spares the others.

None of them knows an alignment when training begins, and in a band that is wrong the encoder is not
taught. They know that they do not know: their alignments are then spread over the lattice, and the
band is made as wide as it takes to cover them, or left out.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from todm_sb.losses.lattice import HostLengths, following_labels, log_softmax, two_channel_loss
from todm_sb.utils.errors import ConfigError, quoted
from todm_sb.utils.products import exact_bmm
from todm_sb.utils.schema import number

# Who chooses the band; see the module.
CHOOSERS = ("simple", "ctc", "max")

# Log-probability of arcs outside the band. Its exponential is 0; sums over a path stay finite.
OUTSIDE = -1e4


@dataclass(frozen=True)
class Pruning:
    """How the lattice is pruned; the defaults are the paper's and icefall's.

    Args:
        s_range: labels a frame in the band; more where an utterance has so few frames that no
            alignment would fit.
        coverage: share of a batch's occupancy, by who chooses the band, that has to lie in it, else
            it is made twice as wide until it does; 0 for always ``s_range``. Of whole alignments
            fewer stay within: one that leaves the band at one node is lost.
        by: who chooses the band: ``simple``, ``ctc`` or ``max``. The rest concerns only ``simple``.
        simple_weight: weight of the simple joiner's loss.
        predictor_smoothing: share of the predictor's logits alone in the simple lattice's
            log-probabilities ("lm_scale").
        encoder_smoothing: share of the encoder's logits with averaged predictor ("am_scale").
        warmup_batches: reference batches over which the weight of the simple loss falls from 1 and
            that of the pruned loss rises from 0.1 to 1, since early bands are poor.

    Raises:
        ConfigError: on a value out of range.
    """

    s_range: int = 5
    coverage: float = 0.0
    by: str = "simple"
    simple_weight: float = 0.5
    predictor_smoothing: float = 0.25
    encoder_smoothing: float = 0.0
    warmup_batches: float = 2000

    def __post_init__(self) -> None:
        if type(self.s_range) is not int or self.s_range < 2:
            raise ConfigError(
                f"s_range is {quoted(self.s_range)}: a band needs at least 2 labels a frame"
            )
        if self.by not in CHOOSERS:
            raise ConfigError(f"by must be one of {CHOOSERS}, not {quoted(self.by)}")
        for name in ("warmup_batches", "simple_weight"):
            number(0, math.inf)(getattr(self, name), name)
        for name in ("predictor_smoothing", "encoder_smoothing", "coverage"):
            number(0, 1)(getattr(self, name), name)
        if self.coverage == 1:
            raise ConfigError("coverage is a share below 1, not 1: a narrower band has to do")
        if not 0 <= self.predictor_smoothing + self.encoder_smoothing <= 1:
            raise ConfigError(
                f"predictor_smoothing ({self.predictor_smoothing}) and encoder_smoothing "
                f"({self.encoder_smoothing}) are shares: together at most 1"
            )

    def choose(
        self,
        occupancy: Tensor,
        n_frames: Tensor,
        n_labels: Tensor,
        host: HostLengths | None = None,
    ) -> Band | None:
        """The narrowest band of ``s_range``, twice that, ... rows that covers enough.

        Args:
            occupancy: (batch, T, U + 1), how probable it is that an alignment passes each node.
            n_frames: (batch,), integer frames of each utterance.
            n_labels: (batch,), integer labels of each utterance.
            host: both of them once more; None to read them from the device.

        Returns:
            The band; None where only the full lattice would do.
        """
        s_range, n_rows = self.s_range, occupancy.shape[2]
        wanted = self.coverage * occupancy.sum()
        while s_range < n_rows:
            band = choose_band(occupancy, n_frames, n_labels, s_range, host)
            if not self.coverage or band.take(occupancy).sum() >= wanted:
                return band
            s_range *= 2
        return None

    def weights(self, batches: float | None) -> tuple[float, float]:
        """Weights of the simple and of the pruned loss after so many reference batches; None for
        the end."""
        if batches is None or batches >= self.warmup_batches:
            return self.simple_weight, 1.0
        done = batches / self.warmup_batches
        return 1.0 - done * (1.0 - self.simple_weight), 0.1 + 0.9 * done


@dataclass(frozen=True)
class Band:
    """The lattice nodes that are looked at: ``width`` consecutive rows in each frame.

    Args:
        start: (batch, T), the first row of each frame, integers.
        width: rows a frame.
    """

    start: Tensor
    width: int

    @functools.cached_property
    def rows(self) -> Tensor:
        """(batch, T, width), the row of each node."""
        return self.start.unsqueeze(-1) + torch.arange(self.width, device=self.start.device)

    def take(self, lattice: Tensor) -> Tensor:
        """(batch, T, U + 1) -> (batch, T, width): values of the nodes in the band."""
        return lattice.gather(2, self.rows)

    def spread(self, values: Tensor, n_rows: int, outside: float = OUTSIDE) -> Tensor:
        """(batch, T, width, channels) -> (batch, T, n_rows, channels), ``outside`` elsewhere."""
        batch, T, _, channels = values.shape
        lattice = values.new_full((batch, T, n_rows, channels), outside)
        return lattice.scatter(2, self.rows.unsqueeze(-1).expand_as(values), values)

    def flat_rows(self, n_rows: int) -> Tensor:
        """(batch, T, width), the row of each node, counted through a batch of ``n_rows`` each."""
        first = n_rows * torch.arange(len(self.start), device=self.start.device)
        return first[:, None, None] + self.rows

    def select(self, predictor: Tensor) -> Tensor:
        """(batch, U + 1, d) -> (batch, T, width, d): what belongs to each node's row."""
        return predictor.flatten(0, 1)[self.flat_rows(predictor.shape[1])]


def choose_band(
    occupancy: Tensor,
    n_frames: Tensor,
    n_labels: Tensor,
    s_range: int,
    host: HostLengths | None = None,
) -> Band:
    """The rows of each frame that alignments pass most, made into a passable band.

    Each frame asks for the ``s_range`` rows of the largest summed occupancy, as k2 has it (the
    paper, section 3.2, asks for the mass that its bounds retain). A path can follow if the band
    starts in row 0, ends in the last one, never goes back and never leaves its own rows in one
    step; where the wishes of the frames break that, earlier frames give way to later ones.

    Args:
        occupancy: (batch, T, U + 1), how probable it is that an alignment passes each node.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        s_range: rows a frame; widened where U labels do not fit into T steps of such a band.
        host: the lengths once more; None to read them from the device.

    Returns:
        The band, at most U + 1 wide.
    """
    T, n_rows = occupancy.shape[1:]
    # A frame can climb width - 1 rows: U <= T (width - 1).
    lengths = zip(*(host or HostLengths.read(n_frames, n_labels)), strict=True)
    labels_a_frame = max((-(-labels // frames) for frames, labels in lengths if frames), default=0)
    width = min(max(s_range, labels_a_frame + 1), n_rows)
    climb = width - 1
    summed = F.pad(occupancy.cumsum(-1), (1, 0))  # (batch, T, U + 2)
    wished = (summed[..., width:] - summed[..., :-width]).argmax(-1)  # (batch, T)

    frame = torch.arange(T, device=occupancy.device)  # (T,)
    last = (n_labels - climb).clamp(min=0).unsqueeze(1)  # (batch, 1), where the last frame starts
    ended = frame >= n_frames.unsqueeze(1) - 1  # (batch, T)
    # From here on (batch, T): the first row of each frame's band.
    start = torch.where(ended, last, torch.minimum(wished, last))
    start = torch.minimum(start, climb * frame)  # reachable from row 0
    start = start.flip(1).cummin(1).values.flip(1)  # never back
    start = (start - climb * frame).flip(1).cummax(1).values.flip(1) + climb * frame  # no leap
    return Band(start, width)


def ctc_lattice(
    log_probs: Tensor,
    labels: Tensor,
    n_frames: Tensor,
    n_labels: Tensor,
    blank: int,
    host: HostLengths | None = None,
) -> Tensor:
    """Where the alignments of a CTC head pass the transducer's lattice.

    All paths take one blank a frame, so that they differ by where their labels are alone.

    Args:
        log_probs: (batch, T, V).
        labels: (batch, U), integer targets; padding is ignored.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        blank: id of blank.
        host: the lengths once more; None to read them from the device.

    Returns:
        (batch, T, U + 1), the occupancy of each node, without gradient.
    """
    following = following_labels(labels, n_labels, blank)
    arcs = _arcs(log_probs.detach(), following, blank)
    return two_channel_loss(arcs, n_frames, n_labels, host)[1]


def simple_lattice(
    encoder: Tensor,
    predictor: Tensor,
    labels: Tensor,
    n_frames: Tensor,
    n_labels: Tensor,
    blank: int,
    pruning: Pruning,
    host: HostLengths | None = None,
) -> tuple[Tensor, Tensor]:
    """Transducer loss of a joiner that adds logits, smoothed.

    Log-probabilities at a node are a weighted mean of those of the sum of both logits, of the
    predictor's alone, and of the encoder's with the predictor's average (section 3.4 of the
    paper); the last two keep either side from leaning on the other.

    Args:
        encoder: (batch, T, V) logits.
        predictor: (batch, U + 1, V) logits.
        labels: (batch, U), integer targets; padding is ignored.
        n_frames: (batch,), integer frames of each utterance.
        n_labels: (batch,), integer labels of each utterance.
        blank: id of blank.
        pruning: the shares.
        host: the lengths once more; None to read them from the device.

    Returns:
        (batch,), the loss in nats, and (batch, T, U + 1), the occupancy of each node.
    """
    dtype = torch.promote_types(encoder.dtype, torch.float32)
    encoder, predictor = encoder.to(dtype), predictor.to(dtype)
    following = following_labels(labels, n_labels, blank)
    arcs = _arcs(encoder, following, blank) + _row_arcs(predictor, following, blank)
    # No smaller than any one term of its sum, where float32 has lost it. Where both are equal the
    # sum it is: torch.maximum would halve its gradient, and saturated logits grow without bound.
    normaliser, largest = _log_sum_exp_of_sums(encoder, predictor), arcs.amax(-1)
    normaliser = torch.where(normaliser < largest, largest, normaliser)
    mean = (arcs - normaliser.unsqueeze(-1)) * (
        1 - pruning.predictor_smoothing - pruning.encoder_smoothing
    )
    if pruning.predictor_smoothing:
        alone = _row_arcs(log_softmax(predictor), following, blank)
        mean = mean + pruning.predictor_smoothing * alone
    if pruning.encoder_smoothing:
        own = torch.arange(predictor.shape[1], device=n_labels.device) <= n_labels.unsqueeze(1)
        # Masked, not selected: how many there are would have to be known on the host.
        log_probs = log_softmax(predictor).masked_fill(~own.unsqueeze(-1), -torch.inf)
        average = log_probs.flatten(0, 1).logsumexp(0) - own.sum().log()
        alone = _arcs(log_softmax(encoder + average), following, blank)
        mean = mean + pruning.encoder_smoothing * alone
    return two_channel_loss(mean, n_frames, n_labels, host)


def _log_sum_exp_of_sums(encoder: Tensor, predictor: Tensor) -> Tensor:
    """``log sum_v exp(encoder[t, v] + predictor[u, v])`` by a matrix product: (batch, T, U + 1)."""
    encoder_max = encoder.amax(-1, keepdim=True).detach()
    predictor_max = predictor.amax(-1, keepdim=True).detach()
    factors = (encoder - encoder_max).exp(), (predictor - predictor_max).exp()
    product = exact_bmm(factors[0], factors[1].transpose(1, 2))
    tiny = torch.finfo(product.dtype).tiny
    return product.clamp(min=tiny).log() + encoder_max + predictor_max.transpose(1, 2)


def _arcs(frames: Tensor, following: Tensor, blank: int) -> Tensor:
    """(batch, T, V) -> (batch, T, U + 1, 2): a frame's values of blank and of each next label."""
    index = following.unsqueeze(1).expand(-1, frames.shape[1], -1)
    label = frames.gather(2, index)
    return torch.stack([frames[..., blank, None].expand_as(label), label], -1)


def _row_arcs(predictor: Tensor, following: Tensor, blank: int) -> Tensor:
    """(batch, U + 1, V) -> (batch, 1, U + 1, 2): a row's values of blank and its next label."""
    label = predictor.gather(2, following.unsqueeze(-1)).squeeze(-1)
    return torch.stack([predictor[..., blank], label], -1).unsqueeze(1)
