import math

import pytest
import torch

from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.subsampling import ConvSubsampling


@pytest.fixture
def make(scatter_parameters):
    def build(causal=False, channels=(3, 4), time_strides=(2, 2)):
        module = ConvSubsampling(7, 5, channels, time_strides, causal)
        return scatter_parameters(module.double())

    return build


def norm(x, module):
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * module.weight + module.bias


def convolve(conv, x, stride, left):
    """A 3 x 3 convolution by definition, on one utterance (frames, bins, channels), with zeros
    around it, the first output centred so that it sees ``left`` frames before frame 0."""
    n_frames, bins, _ = x.shape
    frames, rows = -(-n_frames // stride), -(-bins // 2)
    y = torch.zeros(frames, rows, conv.out_channels, dtype=x.dtype)
    for t in range(frames):
        for f in range(rows):
            y[t, f] = conv.bias
            for i in range(3):
                for j in range(3):
                    source_t, source_f = t * stride + i - left, f * 2 + j - 1
                    if 0 <= source_t < n_frames and 0 <= source_f < bins:
                        y[t, f] += conv.weight[:, :, i, j] @ x[source_t, source_f]
    return y / (1 + torch.exp(-y))  # SiLU


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("time_strides", [(2, 2), (3, 1)])
@torch.no_grad()
def test_each_utterance_of_a_batch_is_convolved_as_if_alone(make, causal, time_strides):
    module = make(causal, time_strides=time_strides)
    lengths = torch.tensor([11, 6, 1])
    features = torch.randn(3, 11, 7, dtype=torch.double)
    for row, length in enumerate(lengths):
        features[row, length:] = 1e3

    frames, n_frames = module(features, lengths)

    for row, length in enumerate(lengths):
        x = features[row, :length].unsqueeze(-1)
        for conv, stride in zip(module.convs, time_strides, strict=True):
            x = convolve(conv, x, stride, left=2 if causal else 1)
        flat = x.transpose(1, 2).flatten(1)  # channels before bins
        expected = flat @ module.projection.weight.T + module.projection.bias
        expected = norm(expected, module.norm)
        assert n_frames[row] == len(expected)
        torch.testing.assert_close(frames[row, : len(expected)], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("time_strides", [(1, 1), (2, 2), (3, 2), (4, 1)])
def test_output_lengths_round_up_at_each_stride(make, time_strides):
    module = make(time_strides=time_strides)
    lengths = torch.arange(1, 30)
    first, second = time_strides
    expected = [math.ceil(math.ceil(n / first) / second) for n in range(1, 30)]
    assert module.output_lengths(lengths).tolist() == expected
    for n in (1, 5, 29):
        features = torch.randn(1, n, 7, dtype=torch.double)
        frames, n_frames = module(features, torch.tensor([n]))
        assert frames.shape[1] == n_frames.item() == expected[n - 1]


def test_channels_and_strides_come_in_pairs():
    with pytest.raises(ValueError, match="3 channels but 2 time_strides"):
        ConvSubsampling(7, 5, (1, 2, 3), (2, 2))


def test_a_mask_is_one_on_the_frames_of_each_utterance():
    mask = frame_mask(torch.tensor([3, 0, 4]), 4, torch.float32)
    assert mask.squeeze(-1).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    assert mask.dtype == torch.float32
    assert mask.shape == (3, 4, 1)
