"""SpeechBrain's Conformer, elastic in depth and in the width of its feed-forward layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.attention import RelPosEncXL, RelPosMHAXL
from torch import Tensor, nn

from todm_sb.nnet.dropout import dropout
from todm_sb.nnet.elastic import ElasticFFN, copy_with
from todm_sb.nnet.encoders.registry import register
from todm_sb.nnet.encoders.stack import LayerStack, StackedEncoder, check_stacked
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.space import SubnetConfig
from todm_sb.space.dimensions import FFN
from todm_sb.utils.schema import integer

check_arguments = check_stacked(
    "conformer", {"n_heads": integer(1, 1024), "kernel_size": integer(1, 1023)}
)


class ConformerLayer(nn.Module):
    """One Conformer block (Gulati et al. 2020, arXiv:2005.08100), as SpeechBrain's
    ``ConformerEncoderLayer`` computes it, from SpeechBrain's attention and convolution.

    Both feed-forward layers are elastic; one choice, ``ffn_dims``, is the width of either. Unlike
    SpeechBrain's, it masks padding before the depthwise convolution as well as after it, so that an
    utterance does not depend on what it is batched with.

    Args:
        d_model: width of input and output.
        n_heads: attention heads.
        kernel_size: frames of the depthwise convolution, odd.
        ffns: both feed-forward layers.
        dropout: probability on each branch; the hidden units of the FFNs have their own, adaptive
            one.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        kernel_size: int,
        ffns: Sequence[ElasticFFN],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_ffn_1 = nn.LayerNorm(d_model)
        self.ffn_1, self.ffn_2 = ffns
        self.norm_attention = nn.LayerNorm(d_model)
        self.attention = RelPosMHAXL(d_model, n_heads, dropout)
        self.convolution = ConvolutionModule(d_model, kernel_size, True, Swish, dropout)
        self.norm_ffn_2 = nn.LayerNorm(d_model)
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = dropout

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, ffn_dims: int | None = None
    ) -> Tensor:
        """Encodes frames.

        Args:
            x: (batch, T, d_model).
            mask: (batch, T, 1), True on an utterance's frames.
            positions: (1, 2 T - 1, d_model).
            ffn_dims: width of both feed-forward layers; all of it when None.

        Returns:
            (batch, T, d_model); padded frames hold no meaning.
        """
        x = x + 0.5 * self._dropped(self.ffn_1(self.norm_ffn_1(x), ffn_dims))
        y = self.norm_attention(x)
        y, _ = self.attention(y, y, y, pos_embs=positions, key_padding_mask=~mask.squeeze(-1))
        x = x + y
        x = x + self._convolved(x, mask)
        y = self._dropped(self.ffn_2(self.norm_ffn_2(x), ffn_dims))
        return self.norm_out(x + 0.5 * y)

    def _convolved(self, x: Tensor, mask: Tensor) -> Tensor:
        part = self.convolution
        y = part.bottleneck(part.layer_norm(x).transpose(1, 2)) * mask.transpose(1, 2)
        return part.after_conv(part.conv(y).transpose(1, 2))

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)

    def extract(self, ffn_dims: int | None = None) -> ConformerLayer:
        """A standalone layer of this width, equal in outputs."""
        return copy_with(self, {ffn: ffn.extract(ffn_dims) for ffn in (self.ffn_1, self.ffn_2)})

    def macs(self, n_frames: int, ffn_dims: int | None = None) -> int:
        """Multiply-accumulates of so many frames."""
        d_model = self.attention.embed_dim
        n_positions = 2 * n_frames - 1
        attention = (
            # Queries, keys, values and output; positions; scores by content, by position; values.
            n_frames * (self.attention.in_proj_weight.numel() + d_model * d_model)
            + n_positions * d_model * d_model
            + n_frames * (2 * n_frames + n_positions) * d_model
        )
        pointwise = self.convolution.bottleneck[0].weight.numel() + d_model * d_model
        convolution = n_frames * (pointwise + self.convolution.conv.weight.numel())
        ffns = self.ffn_1.macs(n_frames, ffn_dims) + self.ffn_2.macs(n_frames, ffn_dims)
        return attention + convolution + ffns


@register("conformer", check_arguments)
class ConformerEncoder(StackedEncoder):
    """Convolutional subsampling and a stack of Conformer blocks.

    It is a :class:`todm_sb.nnet.encoders.Encoder` that sees the whole utterance.

    Args:
        n_features: feature bins a frame.
        d_model: width of the residual stream.
        ffn_dims: width of both feed-forward layers of each layer (of the largest subnet); its
            length is the depth.
        n_heads: attention heads.
        kernel_size: frames of the depthwise convolution, odd.
        dropout: probability, in the feed-forward layers at full width.
        adaptive_dropout, dropout_width: see :class:`ElasticFFN`.
        channels, time_strides: see :class:`ConvSubsampling`.

    Raises:
        ValueError: if a size does not fit.
    """

    def __init__(
        self,
        n_features: int,
        d_model: int,
        ffn_dims: Sequence[int],
        n_heads: int = 8,
        kernel_size: int = 31,
        dropout: float = 0.0,
        adaptive_dropout: bool = True,
        dropout_width: int | None = None,
        channels: tuple[int, ...] = (32, 32),
        time_strides: tuple[int, ...] = (2, 2),
    ) -> None:
        super().__init__()
        self.built_with(locals())
        if not isinstance(n_heads, int) or n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads ({n_heads}) must be a number that divides d_model {d_model}")
        if d_model % 2:
            raise ValueError(
                f"d_model must be even, not {d_model}: positions are sines and cosines"
            )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}")
        full = dropout_width or max(ffn_dims)
        self.subsampling = ConvSubsampling(n_features, d_model, channels, time_strides)
        self.positions = RelPosEncXL(d_model)

        def ffns(width: int) -> list[ElasticFFN]:
            return [ElasticFFN(d_model, width, dropout, adaptive_dropout, full) for _ in range(2)]

        self.layers = LayerStack(
            ConformerLayer(d_model, n_heads, kernel_size, ffns(width), dropout)
            for width in ffn_dims
        )
        self.norm = nn.LayerNorm(d_model, eps=1e-6)  # SpeechBrain's

    @property
    def dimensions(self) -> dict[str, tuple[int, ...]]:
        """The largest choice of each layer by dimension."""
        return {FFN.key: tuple(layer.ffn_1.d_hidden for layer in self.layers)}

    def shared(self, n_frames: int, causal: bool = False) -> tuple[Tensor, ...]:
        """Embeddings of the relative positions: (1, 2 n_frames - 1, d_model)."""
        return (self.positions.make_pe(n_frames).to(self.norm.weight.dtype),)

    def encode(
        self,
        frames: Tensor,
        lengths: Tensor,
        subnet: SubnetConfig | None = None,
        shared: tuple[Tensor, ...] | None = None,
        causal: bool = False,
    ) -> Tensor:
        """The elastic part; see :meth:`todm_sb.nnet.encoders.Encoder.encode`."""
        mask = frame_mask(lengths, frames.shape[1])
        (positions,) = shared or self.shared(frames.shape[1])
        # Those of more frames reach as much too far on either side.
        beyond = (positions.shape[1] + 1) // 2 - frames.shape[1]
        positions = positions[:, beyond : positions.shape[1] - beyond]
        # Under autocast, on each device: the residual stream in the weights' precision.
        x = torch.where(mask, frames, 0.0).to(self.norm.weight.dtype)
        for i, choices in self.layers.active(subnet):
            x = self.layers[i](x, mask, positions, **choices)
        return self.norm(x) * mask

    def extract(self, subnet: SubnetConfig) -> ConformerEncoder:
        """A plain, smaller encoder with the outputs that this one has under a subnet."""
        small = super().extract(subnet)
        small.config["dropout_width"] = self.layers[0].ffn_1.dropout_width
        return small
