"""Where there is nothing to hear, nothing is read, and what is beside it reads as without it."""

import pytest
import torch

from todm_sb.inference import StreamingSubnetASR, SubnetASR

RATE = 8000
FBANKS = {
    "speechbrain": {},
    "kaldi": {"fbank_kind": "kaldi"},
    "snip_edges": {"fbank_kind": "kaldi", "snip_edges": True},
}


@pytest.fixture
def make_asr(make_transducer, make_recogniser):
    """Recognisers that say something in any sound, and in silence too."""

    def make(fbank="snip_edges", norm_type="global", beam_size=1, cls=SubnetASR):
        model = make_transducer("lstm", vocab_size=17, n_features=20, causal=True)
        with torch.no_grad():
            model.joiner.output.bias[model.blank] -= 5
        sizes = {"beam_size": beam_size, "max_symbols": 2}
        return make_recogniser(model, FBANKS[fbank], norm_type, cls, **sizes)

    return make


@pytest.mark.parametrize("fbank", FBANKS)
@pytest.mark.parametrize("norm_type", ["global", "sentence"])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_no_sample_reads_as_no_word(make_asr, fbank, norm_type, beam_size):
    asr = make_asr(fbank, norm_type, beam_size)
    speech = torch.randn(RATE)
    (alone,), _ = asr.transcribe_batch(speech.unsqueeze(0), torch.ones(1))
    assert alone
    assert asr.transcribe_batch(torch.zeros(0, RATE), torch.zeros(0)) == ([], [])
    assert asr.transcribe_batch(torch.zeros(0, 0), torch.zeros(0)) == ([], [])
    for n_samples in (0, RATE):
        empty = torch.randn(2, n_samples), torch.zeros(2)
        assert asr.transcribe_batch(*empty) == (["", ""], [[], []])
    assert asr.transcribe_batch(torch.zeros(2, 0), torch.ones(2)) == (["", ""], [[], []])
    # One row of none among others; what lies in its padding is not heard.
    batch = torch.stack([speech, torch.randn(RATE), speech])
    words, tokens = asr.transcribe_batch(batch, torch.tensor([1.0, 0.0, 1.0]))
    assert words == [alone, "", alone]
    assert tokens[1] == []


@pytest.mark.parametrize("fbank", FBANKS)
@pytest.mark.parametrize("norm_type", ["global", "sentence"])
@pytest.mark.parametrize("n_samples", [1, 79, 80, 199, 200, 201, 279, 280])
def test_less_than_a_window_reads_alike_alone_and_in_a_batch(make_asr, fbank, norm_type, n_samples):
    asr = make_asr(fbank, norm_type)
    speech = torch.randn(2, RATE)
    short = speech[1:, :n_samples]
    (alone,), (tokens,) = asr.transcribe_batch(short, torch.ones(1))
    wav_lens = torch.tensor([1.0, n_samples / RATE])
    words, all_tokens = asr.transcribe_batch(speech, wav_lens)
    assert (words[1], all_tokens[1]) == (alone, tokens)


@pytest.mark.parametrize("size", [0, 1, 200, 5000])
def test_chunks_of_nothing_change_nothing_in_a_stream(make_asr, size):
    asr = make_asr(cls=StreamingSubnetASR)
    speech = torch.randn(2, RATE)
    words, _ = asr.transcribe_batch(speech, torch.ones(2))
    context = asr.make_streaming_context(2)
    said = ["", ""]
    pieces = [speech[:, :size], speech[:, :0], speech[:, size:], speech[:, :0], speech[:, :0]]
    for piece in [speech[:, :0], *pieces]:
        said = [a + b for a, b in zip(said, asr.transcribe_chunk(context, piece), strict=True)]
    said = [a + b for a, b in zip(said, asr.finish(context), strict=True)]
    assert said == words


def test_a_stream_of_nothing_says_nothing(make_asr):
    asr = make_asr(cls=StreamingSubnetASR)
    context = asr.make_streaming_context(2)
    assert asr.finish(context) == ["", ""]
    context = asr.make_streaming_context(2)
    assert asr.transcribe_chunk(context, torch.zeros(2, 0)) == ["", ""]
    assert asr.transcribe_chunk(context, torch.zeros(2, 0), torch.zeros(2)) == ["", ""]
    assert asr.transcribe_chunk(context, torch.randn(2, RATE), torch.zeros(2)) == ["", ""]
    assert asr.finish(context) == ["", ""]


def test_no_streams_say_nothing(make_asr):
    asr = make_asr(cls=StreamingSubnetASR)
    context = asr.make_streaming_context(0)
    assert asr.transcribe_chunk(context, torch.zeros(0, RATE)) == []
    assert asr.finish(context) == []
