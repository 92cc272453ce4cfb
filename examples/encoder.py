"""An encoder of one's own: this file, and one line, with this file's folder on PYTHONPATH:

    python train.py hparams/mini.yaml --model='{encoder: {kind: encoder.convolution}}'

It is elastic in depth and FFN width, and goes through training, search, extraction and bundles like
those of the package. Who loads its bundles imports this file first.
"""

import torch
from torch import nn

from todm_sb.nnet import ElasticFFN, LayerStack, StackedEncoder, register
from todm_sb.nnet.elastic import copy_with
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.utils.schema import integer, mapping, one_of, sequence


class ConvolutionLayer(nn.Module):
    """A convolution over each channel's frames, then an elastic FFN; each with a residual."""

    def __init__(self, d_model, width, kernel_size):
        super().__init__()
        self.norm_conv, self.norm_ffn = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.conv = nn.Conv1d(d_model, d_model, kernel_size, padding="same", groups=d_model)
        self.ffn = ElasticFFN(d_model, width)

    def forward(self, x, mask, ffn_dims=None):
        """(batch, T, d_model) -> (batch, T, d_model); no frame sees padding."""
        y = self.norm_conv(x) * mask
        x = x + self.conv(y.transpose(1, 2)).transpose(1, 2)
        return x + self.ffn(self.norm_ffn(x), ffn_dims)

    def extract(self, ffn_dims=None):
        """A plain layer of this width."""
        return copy_with(self, {self.ffn: self.ffn.extract(ffn_dims)})

    def macs(self, n_frames, ffn_dims=None):
        """Multiply-accumulates of so many frames."""
        return n_frames * self.conv.weight.numel() + self.ffn.macs(n_frames, ffn_dims)


SIZE = integer(1, 4096)
# What may be asked for by a recipe, and by a bundle, which may come from a stranger.
check = mapping(
    {"n_features": SIZE, "d_model": SIZE, "ffn_dims": sequence(SIZE, 1, 128)},
    {"kind": one_of("convolution"), "kernel_size": SIZE},
)


@register("convolution", check)
class ConvolutionEncoder(StackedEncoder):
    """Subsampling, and a stack of :class:`ConvolutionLayer`."""

    def __init__(self, n_features, d_model, ffn_dims, kernel_size=15):
        super().__init__()
        self.built_with(locals())
        self.subsampling = ConvSubsampling(n_features, d_model)
        self.layers = LayerStack(
            ConvolutionLayer(d_model, width, kernel_size) for width in ffn_dims
        )
        self.norm = nn.LayerNorm(d_model)

    @property
    def dimensions(self):
        """The largest choice of each layer, by dimension."""
        return {"ffn_dims": tuple(layer.ffn.d_hidden for layer in self.layers)}

    def encode(self, frames, lengths, subnet=None, shared=None, causal=False):
        """(batch, T, d_model) -> (batch, T, d_model), zero on padded frames."""
        mask = frame_mask(lengths, frames.shape[1])
        x = torch.where(mask, frames, 0.0)
        for i, choices in self.layers.active(subnet):
            x = self.layers[i](x, mask, **choices)
        return self.norm(x) * mask
