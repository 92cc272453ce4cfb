import pytest
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import InputNormalization, make_padding_mask
from torch import nn

from todm_sb.nnet.features import SpeechFeatures, check_hop, make_fbank
from todm_sb.nnet.hop import hop_of, samples_of
from todm_sb.utils.errors import ConfigError


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


def test_the_normaliser_is_told_frames_and_epoch():
    normalizer = Recorder()
    extractor = SpeechFeatures(FrameCounter(10), normalizer, hop=10)
    with torch.autocast("cpu", torch.bfloat16):
        features, n_frames = extractor(
            torch.zeros(2, 99, dtype=torch.bfloat16), torch.tensor([1.0, 50 / 99]), epoch=3
        )
    assert n_frames.tolist() == [10, 6]
    lengths, epoch = normalizer.seen
    assert make_padding_mask(features, lengths).sum(1).flatten().tolist() == [10, 6]
    assert epoch == 3
    assert features.dtype == torch.float32
    assert features[0].flatten().tolist() == [i - 1 for i in range(10)]


@pytest.mark.parametrize("n", [1, 2, 999, 3001])
def test_statistics_are_of_every_frame_of_an_utterance_and_of_no_other(n):
    normalizer = Recorder()
    extractor = SpeechFeatures(FrameCounter(1), normalizer, hop=1)
    n_samples = torch.arange(n + 1)
    features, n_frames = extractor(torch.zeros(n + 1, n), n_samples / n)
    mask = make_padding_mask(features, normalizer.seen[0])
    assert torch.equal(mask.sum(1).flatten(), n_frames)


@pytest.mark.parametrize("options", [{}, {"fbank_kind": "kaldi"}])
def test_what_lies_behind_an_utterance_is_not_heard(options):
    fbank = make_fbank(16000, 20, 512, 25, 10, **options)
    extractor = SpeechFeatures(fbank, InputNormalization(norm_type="sentence"), hop=160)
    quiet, loud = 1e-3 * torch.randn(1, 16000), torch.randn(1, 16000)
    alone, n_frames = extractor(quiet, torch.ones(1))
    found, same = extractor(torch.cat([quiet, loud], 1), torch.tensor([0.5]))
    assert same == n_frames
    torch.testing.assert_close(found[:, :n_frames], alone, rtol=0, atol=1e-3)


def test_kaldi_features_count_their_own_frames():
    fbank = make_fbank(16000, 23, 400, 25, 10, fbank_kind="kaldi", snip_edges=True)
    extractor = SpeechFeatures(fbank, Recorder(), hop=160)
    wavs = torch.randn(2, 1000)
    features, n_frames = extractor(wavs, torch.tensor([1.0, 0.5]))
    assert n_frames.tolist() == [4, 1]
    torch.testing.assert_close(features, fbank(wavs, torch.tensor([1000, 500]))[0] - 1)


def test_a_filterbank_is_made_from_plain_types():
    kaldi = make_fbank(8000, 40, 256, 25, 10, fbank_kind="kaldi")
    assert (kaldi.window, kaldi.hop, kaldi.snip_edges) == (200, 80, False)
    speechbrain = make_fbank(8000, 40, 256, 25, 10)
    assert isinstance(speechbrain, Fbank)
    assert speechbrain(torch.zeros(1, 800)).shape == (1, 11, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fbank_kind": "mfcc"}, "must be speechbrain or kaldi, not 'mfcc'"),
        ({"snip_edges": True}, "snip_edges"),
    ],
)
def test_filterbanks_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make_fbank(8000, 40, 256, 25, 10, **options)


@pytest.mark.parametrize(
    "options", [{}, {"fbank_kind": "kaldi"}, {"fbank_kind": "kaldi", "snip_edges": True}]
)
def test_frames_are_counted_before_there_is_audio_as_they_are_of_it(options):
    fbank = make_fbank(16000, 20, 512, 25, 10, **options)
    extractor = SpeechFeatures(fbank, Recorder(), hop=samples_of(10, 16000))
    numbers = [0, 1, 79, 80, 159, 160, 399, 400, 401, 560, 1600]
    for n in numbers:
        _, (found,) = extractor(torch.randn(1, n), torch.ones(1))
        assert extractor.n_frames(n) == found
    assert extractor.n_frames(torch.tensor(numbers)).tolist() == [*map(extractor.n_frames, numbers)]


@pytest.mark.parametrize(("rate", "hop"), [(16000, 10), (22050, 10), (16000, 12.5), (8000, 10.05)])
def test_a_hop_that_passes_is_that_of_every_filterbank(rate, hop):
    options = {"sample_rate": rate, "n_mels": 20, "n_fft": 1024, "win_length": 25}
    options["hop_length"] = hop
    check_hop(options)
    kaldi, speechbrain = (make_fbank(**options, fbank_kind=k) for k in ("kaldi", "speechbrain"))
    assert kaldi.hop == speechbrain.compute_STFT.hop_length == hop_of(options)
    with pytest.raises(ConfigError, match=r"hop_length: 0\.9 samples"):
        check_hop({**options, "hop_length": 900 / rate})
