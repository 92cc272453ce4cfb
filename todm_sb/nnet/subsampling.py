"""Convolutional subsampling of feature frames."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from todm_sb.nnet.masking import frame_mask

KERNEL = 3


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
        causal: see only the present and the past.

    Raises:
        ValueError: if ``channels`` and ``time_strides`` differ in length.
    """

    def __init__(
        self,
        n_features: int,
        d_model: int,
        channels: tuple[int, ...] = (32, 32),
        time_strides: tuple[int, ...] = (2, 2),
        causal: bool = False,
    ) -> None:
        super().__init__()
        if len(channels) != len(time_strides):
            raise ValueError(
                f"{len(channels)} channels but {len(time_strides)} time_strides: "
                "give one of each a convolution"
            )
        self.time_strides = tuple(time_strides)
        # (left, right) frames of zero padding; both give ceil(T / stride) outputs.
        self.time_padding = (KERNEL - 1, 0) if causal else (KERNEL // 2, KERNEL // 2)
        inputs = (1, *channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, KERNEL, stride=(stride, 2), padding=(0, 1))
            for i, o, stride in zip(inputs, channels, self.time_strides, strict=True)
        )
        for _ in channels:
            n_features = -(-n_features // 2)
        self.projection = nn.Linear(channels[-1] * n_features, d_model)
        self.norm = nn.LayerNorm(d_model)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Output frames of utterances of so many feature frames (integers)."""
        for stride in self.time_strides:
            lengths = (lengths + stride - 1) // stride
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Subsamples a batch.

        Args:
            features: (batch, T, n_features).
            lengths: (batch,), integer feature frames of each utterance.

        Returns:
            Frames (batch, T', d_model) and their lengths; padded frames hold no meaning.
        """
        x = features.unsqueeze(1)
        for conv, stride in zip(self.convs, self.time_strides, strict=True):
            mask = frame_mask(lengths, x.shape[2], x.dtype).unsqueeze(1)
            x = F.silu(conv(F.pad(x * mask, (0, 0, *self.time_padding))))
            lengths = (lengths + stride - 1) // stride
        return self.norm(self.projection(x.transpose(1, 2).flatten(2))), lengths
