import math

import pytest
import torch

from todm_sb.nnet.masking import frame_mask
from todm_sb.nnet.subsampling import ENDLESS, ConvSubsampling
from todm_sb.utils.errors import ConfigError


@pytest.fixture
def make(scatter_parameters):
    def build(causal=False, channels=(3, 4), time_strides=(2, 2), look_ahead=0):
        module = ConvSubsampling(7, 5, channels, time_strides, causal, look_ahead)
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


@pytest.mark.parametrize(
    ("causal", "look_ahead", "left"), [(False, 0, 1), (True, 0, 2), (True, 1, 1), (True, 2, 0)]
)
@pytest.mark.parametrize("time_strides", [(2, 2), (3, 1)])
@torch.no_grad()
def test_each_utterance_of_a_batch_is_convolved_as_if_alone(
    make, causal, look_ahead, left, time_strides
):
    module = make(causal, time_strides=time_strides, look_ahead=look_ahead)
    lengths = torch.tensor([11, 6, 1])
    features = torch.randn(3, 11, 7, dtype=torch.double)
    for row, length in enumerate(lengths):
        features[row, length:] = 1e3

    frames, n_frames = module(features, lengths)

    for row, length in enumerate(lengths):
        x = features[row, :length].unsqueeze(-1)
        for conv, stride in zip(module.convs, time_strides, strict=True):
            x = convolve(conv, x, stride, left)
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


CHUNKINGS = [[29], [1] * 29, [4, 8, 16, 1], [13, 0, 1, 2, 3, 10]]


@pytest.mark.parametrize("look_ahead", [0, 1, 2])
@pytest.mark.parametrize("time_strides", [(2, 2), (3, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("sizes", CHUNKINGS)
@torch.no_grad()
def test_any_chunking_gives_the_frames_of_the_whole(make, look_ahead, time_strides, sizes):
    module = make(True, time_strides=time_strides, look_ahead=look_ahead)
    ends = torch.tensor([29, 17, 0])
    features = torch.randn(3, 29, 7, dtype=torch.double)
    whole, n_frames = module(features, ends)

    # A stream's end is known once it has come.
    parts, counts, state, seen = [], 0, module.initial_state(3), 0
    after_the_end = torch.randn(3, module.look_ahead, 7, dtype=torch.double)
    for chunk in [*features.split(sizes, dim=1), after_the_end]:
        seen += chunk.shape[1]
        lengths = torch.where(ends < seen, ends, ENDLESS) if seen <= 29 else ends
        frames, n_new, state = module.chunk(chunk, state, lengths)
        parts.append(frames)
        counts = counts + n_new
    together = torch.cat(parts, dim=1)

    assert counts.tolist() == n_frames.tolist()
    for row, n in enumerate(n_frames):
        torch.testing.assert_close(together[row, :n], whole[row, :n], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("look_ahead", [0, 1, 2])
@torch.no_grad()
def test_a_frame_sees_as_far_ahead_as_is_told(make, look_ahead):
    module = make(True, time_strides=(2, 3), look_ahead=look_ahead)
    assert module.look_ahead == look_ahead * (1 + 2)
    features = torch.randn(1, 36, 7, dtype=torch.double)
    frames, _ = module(features, torch.tensor([36]))
    for beyond, differs in ((0, True), (1, False)):
        changed = features.clone()
        changed[:, 12 + module.look_ahead + beyond :] += 1
        difference = (module(changed, torch.tensor([36]))[0] - frames)[0, 2].abs().max()
        assert (difference > 1e-6) == differs


@torch.no_grad()
def test_frames_come_as_soon_as_all_they_see_is_there(make):
    module = make(True, look_ahead=1)
    state, came = module.initial_state(1), []
    for frame in torch.randn(1, 12, 7, dtype=torch.double).split(1, dim=1):
        frames, _, state = module.chunk(frame, state, torch.tensor([ENDLESS]))
        came.append(frames.shape[1])
    # Output t sees feature frames up to 4 t + 3.
    assert came == [0, 0, 0, 1] * 3


def test_strides_that_leave_frames_out_cannot_run_in_chunks(make):
    with pytest.raises(ConfigError, match="time_strides above 3"):
        make(True, time_strides=(4, 1)).initial_state(1)


@pytest.mark.parametrize(("causal", "look_ahead"), [(True, 3), (True, -1), (False, 1)])
def test_a_look_ahead_that_does_not_fit_is_refused(make, causal, look_ahead):
    with pytest.raises(ValueError, match="look_ahead must be 0 to 2, of a causal network"):
        make(causal, look_ahead=look_ahead)
