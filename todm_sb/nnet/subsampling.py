"""Convolutional subsampling of feature frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.masking import Count, frame_mask
from todm_sb.utils.errors import ConfigError

KERNEL = 3

# The length of a stream whose end has not come yet.
ENDLESS = 2**40


def _output_length(length: Count, stride: int) -> Count:
    """Frames that a convolution gives of so many frames: one for each stride, also a last part."""
    return (length + stride - 1) // stride


class ConvSubsampling(nn.Module):
    """Strided 3 x 3 convolutions over (time, frequency), a projection and a norm.

    The norm puts frames on the scale of the residual branches that are added to them; without it,
    an untrained encoder drowns them.

    Padded frames are zeroed before every convolution, as a lone utterance's surroundings are, so
    that the output does not depend on the batch.

    Args:
        n_features: feature bins a frame.
        d_model: width of the output.
        channels: channels of each convolution.
        time_strides: stride in time of each convolution; their product is the subsampling factor.
            The stride in frequency is always 2.
        causal: see only the present and the past, and ``look_ahead``.
        look_ahead: future frames, 0 to 2, that each convolution of a causal network sees.

    Raises:
        ValueError: if ``channels`` and ``time_strides`` differ in length, or on a ``look_ahead``
            that does not fit.
    """

    def __init__(
        self,
        n_features: int,
        d_model: int,
        channels: tuple[int, ...] = (32, 32),
        time_strides: tuple[int, ...] = (2, 2),
        causal: bool = False,
        look_ahead: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= look_ahead < KERNEL or (look_ahead and not causal):
            raise ValueError(f"look_ahead must be 0 to 2, of a causal network, not {look_ahead}")
        if len(channels) != len(time_strides):
            raise ValueError(
                f"{len(channels)} channels but {len(time_strides)} time_strides: "
                "give one of each a convolution"
            )
        self.time_strides = tuple(time_strides)
        # (left, right) frames of zero padding; both give ceil(T / stride) outputs.
        right = look_ahead if causal else KERNEL // 2
        self.time_padding = (KERNEL - 1 - right, right)
        self.n_features = n_features
        inputs = (1, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, KERNEL, stride=(stride, 2), padding=(0, 1))
            for i, o, stride in zip(inputs, channels, self.time_strides, strict=True)
        )
        for _ in channels:
            n_features = -(-n_features // 2)
        self.projection = nn.Linear(channels[-1] * n_features, d_model)
        self.norm = nn.LayerNorm(d_model)

    def convolutions(self) -> list[nn.Conv2d]:
        """The convolutions, in order."""
        return [conv for conv in self.convs if isinstance(conv, nn.Conv2d)]

    def output_lengths(self, lengths: Count) -> Count:
        """Output frames of utterances of so many feature frames (integers)."""
        for stride in self.time_strides:
            lengths = _output_length(lengths, stride)
        return lengths

    @property
    def look_ahead(self) -> int:
        """Feature frames after its own that an output frame sees."""
        strides = torch.tensor([1, *self.time_strides[:-1]])
        return self.time_padding[1] * int(strides.cumprod(0).sum())

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Subsamples a batch.

        Args:
            features: (batch, T, n_features).
            lengths: (batch,), integer feature frames of each utterance.

        Returns:
            Frames (batch, T', d_model) and their lengths; padded frames hold no meaning.
        """
        x = features.unsqueeze(1)
        for conv, stride in zip(self.convolutions(), self.time_strides, strict=True):
            # Not by a product: what is not a number on padding has to go, too.
            x = x.masked_fill(~frame_mask(lengths, x.shape[2]).unsqueeze(1), 0.0)
            x = F.silu(conv(F.pad(x, (0, 0, *self.time_padding))))
            lengths = _output_length(lengths, stride)
        return self.norm(self.projection(x.transpose(1, 2).flatten(2))), lengths

    def macs(self, n_features: int) -> int:
        """Multiply-accumulates of an utterance of so many feature frames, padding included."""
        macs, bins = 0, self.n_features
        for conv, stride in zip(self.convolutions(), self.time_strides, strict=True):
            n_features, bins = -(-n_features // stride), -(-bins // 2)
            macs += n_features * bins * conv.weight.numel()
        return macs + n_features * self.projection.weight.numel()

    @property
    def has_chunks(self) -> bool:
        """Whether it can run chunk by chunk: no stride leaves frames out."""
        return max(self.time_strides) <= KERNEL

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """What :meth:`chunk` starts from: how many features were seen, and what each convolution
        saw of them.

        Raises:
            ConfigError: if a stride leaves frames out, which the chunked form has no place for.
        """
        if not self.has_chunks:
            raise ConfigError(f"time_strides above {KERNEL} cannot run chunk by chunk")
        weight = self.projection.weight
        seen = torch.zeros(batch, dtype=torch.long, device=weight.device)
        n_bins, contexts = self.n_features, []
        for conv in self.convolutions():
            contexts.append(weight.new_zeros(batch, conv.in_channels, self.time_padding[0], n_bins))
            n_bins = -(-n_bins // 2)
        return seen, *contexts

    def chunk(
        self, features: Tensor, state: tuple[Tensor, ...], lengths: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The same map chunk by chunk; output frames come as soon as all they see is there.

        To get the last ones, feed :attr:`look_ahead` more feature frames, of any content, along
        with the then known lengths.

        Args:
            features: (batch, L, n_features), any number L of frames.
            state: what the last call, or :meth:`initial_state`, returned.
            lengths: (batch,), integer feature frames of each whole stream, :data:`ENDLESS` where
                not yet known.

        Returns:
            New frames (batch, n, d_model), how many of them are each stream's (batch,), and the
            next state. Frames after a stream's end hold no meaning.
        """
        seen, *contexts = state
        new_state = [seen + features.shape[1]]
        x = features.unsqueeze(1)
        for conv, stride, context in zip(
            self.convolutions(), self.time_strides, contexts, strict=True
        ):
            mask = frame_mask(lengths - seen, x.shape[2], x.dtype).unsqueeze(1)
            x = torch.cat([context, x * mask], dim=2)
            n_new = max(0, (x.shape[2] - KERNEL) // stride + 1)
            new_state.append(x[:, :, n_new * stride :])
            if n_new:
                x = F.silu(conv(x))
            else:
                x = x.new_zeros(len(x), conv.out_channels, 0, -(-x.shape[3] // 2))
            seen = ((seen + self.time_padding[0] - KERNEL) // stride + 1).clamp(min=0)
            lengths = _output_length(lengths, stride)
        frames = self.norm(self.projection(x.transpose(1, 2).flatten(2)))
        return frames, (lengths - seen).clamp(0, frames.shape[1]), tuple(new_state)
