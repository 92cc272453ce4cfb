"""An elastic dimension of one's own: its name, a layer that obeys it, an encoder that has it.

The dimension here is how many of a convolution's taps are active, those in its middle. A recipe's
search space knows it once this file is imported, with this file's folder on PYTHONPATH:

    todm-sb --import dimension train hparams/mini.yaml \\
        --search_space='{kernel_sizes: [3, 7, 15]}' --model='{encoder: {kind: elastic_convolution}}'
    todm-sb --import dimension search results/mini/1234
"""

import copy

import torch.nn.functional as F
from encoder import ConvolutionEncoder, ConvolutionLayer

from todm_sb.nnet import LayerStack, register
from todm_sb.nnet.elastic import copy_with
from todm_sb.space import DIMENSIONS, Dimension

KERNEL = Dimension(key="kernel_sizes", label="kernel", largest=255)
DIMENSIONS[KERNEL.key] = KERNEL


class ElasticConvolutionLayer(ConvolutionLayer):
    """A :class:`ConvolutionLayer` of which the middle taps can be used alone, an odd number."""

    def forward(self, x, mask, ffn_dims=None, kernel_sizes=None):
        """(batch, T, d_model) -> (batch, T, d_model)."""
        y = (self.norm_conv(x) * mask).transpose(1, 2)
        weight = self._taps(kernel_sizes)
        y = F.conv1d(y, weight, self.conv.bias, padding="same", groups=len(weight))
        x = x + y.transpose(1, 2)
        return x + self.ffn(self.norm_ffn(x), ffn_dims)

    def extract(self, ffn_dims=None, kernel_sizes=None):
        """A plain layer of this choice."""
        conv = copy_with(self.conv, {self.conv.weight: self._taps(kernel_sizes)})
        conv.kernel_size = (conv.weight.shape[2],)
        parts = {id(self.conv): conv, id(self.ffn): self.ffn.extract(ffn_dims)}
        return copy.deepcopy(self, parts)

    def macs(self, n_frames, ffn_dims=None, kernel_sizes=None):
        """Multiply-accumulates of so many frames."""
        conv = n_frames * self._taps(kernel_sizes).numel()
        return conv + self.ffn.macs(n_frames, ffn_dims)

    def _taps(self, size):
        most = self.conv.weight.shape[2]
        left_out = (most - (size or most)) // 2
        return self.conv.weight[:, :, left_out : most - left_out]


@register("elastic_convolution")
class ElasticConvolutionEncoder(ConvolutionEncoder):
    """A :class:`ConvolutionEncoder` elastic in its kernels, too."""

    def __init__(self, n_features, d_model, ffn_dims, kernel_sizes):
        super().__init__(n_features, d_model, ffn_dims)
        del self.config["kernel_size"]
        self.config["kernel_sizes"] = list(kernel_sizes)
        self.layers = LayerStack(
            ElasticConvolutionLayer(d_model, width, size)
            for width, size in zip(ffn_dims, kernel_sizes, strict=True)
        )

    @property
    def dimensions(self):
        """The largest choice of each layer, by dimension."""
        kernels = tuple(layer.conv.weight.shape[2] for layer in self.layers)
        return {**super().dimensions, KERNEL.key: kernels}
