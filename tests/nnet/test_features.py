import torch
from torch import nn

from todm_sb.nnet.features import SpeechFeatures


class FrameCounter(nn.Module):
    """One frame at each multiple of the hop; a frame's feature is its number."""

    def __init__(self, hop):
        super().__init__()
        self.hop = hop

    def forward(self, wavs):
        assert wavs.dtype == torch.float32
        frames = torch.arange(wavs.shape[1] // self.hop + 1.0)
        return frames.view(1, -1, 1).expand(len(wavs), -1, 1)


class Recorder(nn.Module):
    def forward(self, features, lengths, epoch=None):
        self.seen = (lengths, epoch)
        return features - 1


def test_frames_are_counted_from_samples_exactly_in_any_batch():
    extractor = SpeechFeatures(FrameCounter(160), Recorder(), hop=160)
    longest = 160 * 2999 + 7
    for n_samples in [1, 159, 160, 161, 160 * 1000 - 1, 160 * 1000, 160 * 1000 + 1, longest]:
        fractions = torch.tensor([n_samples / longest, 1.0])
        _, n_frames = extractor(torch.zeros(2, longest), fractions)
        assert n_frames.tolist() == [n_samples // 160 + 1, 3000]


def test_the_normaliser_is_told_lengths_as_fractions_of_frames_and_the_epoch():
    normalizer = Recorder()
    extractor = SpeechFeatures(FrameCounter(10), normalizer, hop=10)
    with torch.autocast("cpu", torch.bfloat16):
        features, n_frames = extractor(
            torch.zeros(2, 99, dtype=torch.bfloat16), torch.tensor([1.0, 50 / 99]), epoch=3
        )
    assert n_frames.tolist() == [10, 6]
    lengths, epoch = normalizer.seen
    torch.testing.assert_close(lengths, torch.tensor([1.0, 0.6]))
    assert epoch == 3
    assert features.dtype == torch.float32
    assert features[0].flatten().tolist() == [i - 1 for i in range(10)]
