"""SpecAugment (Park et al. 2019, arXiv:1904.08779): masks over frequencies and over frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.schema import integer, number, sequence

_RANGE = sequence(integer(0, 10_000), 2, 2)


class SpecAugment(nn.Module):
    """Masks bands of bins and stretches of frames, of each utterance on its own.

    Called as SpeechBrain's ``Augmenter`` of features is. What is masked is set to 0, the mean of
    normalised features. All is drawn on the host, from torch's generator, and copied to the device
    once, which is never waited for: what depends on lengths is computed there. A seed gives the
    same masks on every device.

    Of each utterance the number of masks of a kind, the width of each and, within what leaves room
    for it, its place are uniform. Time masks are made fewer and narrower where they could have more
    than ``time_share`` of the L frames of an utterance: of the widest there are as few as have that
    many, at most ``ceil(time_share L / widest)``, and none is wider than an equal part of them. A
    warp moves one frame by up to ``time_warp`` frames and stretches both sides to fit, linearly.

    The defaults are icefall's, but for the warp.

    Args:
        freq_count: fewest and most frequency masks.
        freq_width: fewest and most bins of each.
        time_count: fewest and most time masks.
        time_width: fewest and most frames of each.
        time_share: most of an utterance's frames that its time masks have in all.
        time_warp: 0 for none. Utterances of under ``2 time_warp + 3`` frames are left as they are.

    Raises:
        ConfigError: if an argument is out of range.
    """

    def __init__(
        self,
        freq_count: tuple[int, int] = (2, 2),
        freq_width: tuple[int, int] = (0, 27),
        time_count: tuple[int, int] = (10, 10),
        time_width: tuple[int, int] = (0, 100),
        time_share: float = 0.15,
        time_warp: int = 0,
    ) -> None:
        super().__init__()
        ranges = {
            "freq_count": freq_count,
            "freq_width": freq_width,
            "time_count": time_count,
            "time_width": time_width,
        }
        for name, value in ranges.items():
            _RANGE(value, name)
            if value[0] > value[1]:
                raise ConfigError(f"{name} must ascend: {list(value)}")
        number(0, 1)(time_share, "time_share")
        integer(0, 10_000)(time_warp, "time_warp")
        self.freq_count, self.freq_width = freq_count, freq_width
        self.time_count, self.time_width = time_count, time_width
        self.time_share, self.time_warp = time_share, time_warp

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Augments a batch.

        Args:
            features: (batch, T, bins), normalised.
            lengths: (batch,), lengths as fractions of T.

        Returns:
            Features, of which padding is as it was but for frequency masks, and ``lengths``.
        """
        batch, T, bins = features.shape
        n_draws = [1 + 2 * self.freq_count[1], 1 + 2 * self.time_count[1], 2]
        draws = torch.rand(batch, sum(n_draws)).to(features.device, non_blocking=True)
        of_freq, of_time, of_warp = draws.split(n_draws, 1)
        n_frames = (lengths * T).round().unsqueeze(1)
        if self.time_warp:
            features = warp(features, n_frames, self.time_warp, of_warp)
        share = (n_frames * self.time_share).floor()
        in_time = masked(T, n_frames, self.time_count, self.time_width, of_time, share)
        n_bins = torch.full_like(n_frames, bins)
        in_freq = masked(bins, n_bins, self.freq_count, self.freq_width, of_freq)
        return features.masked_fill(in_time.unsqueeze(2) | in_freq.unsqueeze(1), 0.0), lengths


def masked(
    n: int,
    size: Tensor,
    count: tuple[int, int],
    width: tuple[int, int],
    draws: Tensor,
    share: Tensor | None = None,
) -> Tensor:
    """Which of n positions are masked.

    Args:
        n: of the longest utterance.
        size: (batch, 1), positions that can be masked, the first ones; whole numbers.
        count, width: see :class:`SpecAugment`.
        draws: (batch, 1 + 2 masks), uniform in [0, 1): for the number of masks, then the width of
            each, then the place of each.
        share: (batch, 1), most positions of all masks together; None for any.

    Returns:
        (batch, n) booleans.
    """
    of_count, of_width, of_place = draws.split([1, count[1], count[1]], 1)
    masks = _uniform(of_count, count[0], count[1])
    widest = size.clamp(max=width[1])
    if share is not None:
        masks = torch.minimum(masks, (share / max(width[1], 1)).ceil())
        widest = torch.minimum(widest, (share / masks.clamp(min=1)).floor())
    widths = _uniform(of_width, widest.clamp(max=width[0]), widest)
    first = _uniform(of_place, 0, size - widths)
    there = torch.arange(count[1], device=size.device) < masks
    first, end = first.unsqueeze(2), (first + widths * there).unsqueeze(2)
    position = torch.arange(n, device=size.device)
    return ((first <= position) & (position < end)).any(1)


def warp(features: Tensor, n_frames: Tensor, most: int, draws: Tensor) -> Tensor:
    """Features whose frames are moved in time, linearly between the first, one other and the last.

    Args:
        features: (batch, T, bins).
        n_frames: (batch, 1), whole numbers.
        most: frames that the one is moved by at most.
        draws: (batch, 2), uniform in [0, 1): for which it is, and where it goes.

    Returns:
        (batch, T, bins); padding, and utterances that are too short, as they were.
    """
    last = n_frames - 1
    source = _uniform(draws[:, :1], most + 1, last - most - 1)
    target = source + _uniform(draws[:, 1:], -most, most)
    frame = torch.arange(features.shape[1], device=features.device, dtype=n_frames.dtype)
    before = frame * source / target
    after = last - (last - frame) * (last - source) / (last - target)
    moved = (frame <= last) & (n_frames >= 2 * most + 3)
    place = torch.where(moved, torch.where(frame < target, before, after), frame).unsqueeze(2)
    left = place.floor()
    right = torch.minimum(left + 1, last.clamp(min=0).unsqueeze(2)).maximum(left)
    at_left, at_right = (features.gather(1, i.long().expand_as(features)) for i in (left, right))
    return torch.lerp(at_left, at_right, (place - left).to(features.dtype))


def _uniform(draws: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Whole numbers from low to high, by draws from [0, 1)."""
    return low + (draws * (high - low + 1)).floor()
