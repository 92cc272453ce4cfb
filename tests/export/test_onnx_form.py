"""An encoder says itself what it is in ONNX; one that does not is refused by its name."""

import pytest
import torch
from speechbrain.processing.features import InputNormalization
from torch import nn

from todm_sb.nnet.elastic import ElasticFFN
from todm_sb.nnet.encoders import LayerStack, StackedEncoder
from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.subsampling import ConvSubsampling
from todm_sb.utils.errors import ConfigError

pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from todm_sb.export.onnx_networks import encoder_model  # noqa: E402


class Mute(StackedEncoder):
    """Feed-forward layers."""

    kind = "feed-forward"

    def __init__(self, n_features, d_model, ffn_dims):
        super().__init__()
        self.built_with(locals())
        self.subsampling = ConvSubsampling(n_features, d_model, (3,), (2,))
        self.layers = LayerStack(ElasticFFN(d_model, width) for width in ffn_dims)
        self.norm = nn.LayerNorm(d_model)

    @property
    def dimensions(self):
        return {"ffn_dims": tuple(layer.d_hidden for layer in self.layers)}

    def encode(self, frames, lengths, subnet=None, shared=None, causal=False):
        for i, choices in self.layers.active(subnet):
            frames = frames + self.layers[i](frames, **choices)
        return self.norm(frames) * frame_mask(lengths, frames.shape[1])


class Spoken(Mute):
    def to_onnx(self, build, x, states=None):
        for i, layer in enumerate(self.layers):
            y = build.silu(build.linear(x, layer.w_1, f"layers.{i}.w_1"))
            x = build.add(x, build.linear(y, layer.w_2, f"layers.{i}.w_2"))
        return build.layer_norm(x, self.norm, "norm"), []


@torch.no_grad()
def test_what_an_encoder_says_is_what_it_computes(make_transducer, scatter_parameters):
    model = make_transducer()
    normalize = InputNormalization(norm_type="global").eval()
    normalize.glob_mean, normalize.glob_std = torch.randn(6), 1 + torch.rand(6)
    model.encoder = scatter_parameters(Spoken(6, 8, [12, 5])).eval()
    features, lengths = torch.randn(2, 31, 6), torch.tensor([31, 18])
    encoded, n_frames = model.encoder(normalize(features, lengths / 31), lengths)
    expected = model.joiner.project_encoder(encoded)
    session = onnxruntime.InferenceSession(encoder_model(model, normalize).SerializeToString())
    got, got_lengths = session.run(None, {"x": features.numpy(), "x_lens": lengths.numpy()})
    assert got_lengths.tolist() == n_frames.tolist()
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=0, atol=1e-5)

    model.encoder = Mute(6, 8, [12, 5])
    with pytest.raises(ConfigError, match="kind feed-forward cannot be exported to ONNX"):
        encoder_model(model, normalize)
