"""Streams read as whole files do. The networks are untrained, but made talkative."""

import itertools
import os
import threading

import pytest
import soundfile
import torch

from todm_sb.dataio.tokenizer import load_tokenizer
from todm_sb.inference import StreamingSubnetASR, SubnetASR
from todm_sb.nnet.ssm_kernel import Modes
from todm_sb.utils.errors import ConfigError, DataError

RATE = 8000


@pytest.fixture
def make_asr(make_talkative, make_recogniser, char_tokenizer_path):
    def make(
        predictor="lstm",
        fbank=None,
        norm_type="global",
        beam_size=1,
        cls=StreamingSubnetASR,
        tokenizer_path=char_tokenizer_path,
        **encoder,
    ):
        vocab_size = load_tokenizer(tokenizer_path).vocab_size()
        options = {"causal": True, "n_features": 20, "vocab_size": vocab_size, **encoder}
        return make_recogniser(
            make_talkative(predictor, **options),
            fbank or {"fbank_kind": "kaldi", "snip_edges": True},
            norm_type,
            cls,
            tokenizer_path,
            beam_size=beam_size,
        )

    return make


def speech(*seconds):
    """Noise whose loudness and colour change."""
    wavs = torch.randn(len(seconds), round(max(seconds) * RATE))
    t = torch.arange(wavs.shape[1]) / RATE
    return wavs * torch.sin(9 * t) ** 2 * 0.3 + 0.2 * torch.sin(300 * t * (2 + torch.sin(4 * t)))


def stream(asr, wavs, n_samples, sizes):
    """Words and encoder frames of streams that end after so many samples each."""
    context = asr.make_streaming_context(len(wavs))
    said, frames = [""] * len(wavs), [[] for _ in wavs]
    begin = 0

    def add(encoded, counts):
        words, _ = asr.decode_chunk(context, encoded, counts)
        for row, n in enumerate(counts):
            said[row] += words[row]
            frames[row].append(encoded[row, :n])

    for chunk in wavs.split(sizes, dim=1):
        fraction = ((n_samples - begin) / chunk.shape[1]).clamp(0, 1)
        add(*asr.encode_chunk(context, chunk, fraction))
        begin += chunk.shape[1]
    last = asr.finish(context)
    return [a + b for a, b in zip(said, last, strict=True)], [torch.cat(f) for f in frames]


SIZES = [[16000], [1600] * 10, [1, 2, 199, 81, 7, 710, 5000, 10000], [37] * 60 + [13780]]


@pytest.mark.parametrize("predictor", ["lstm", "stateless"])
@pytest.mark.parametrize("sizes", SIZES)
def test_any_chunking_of_many_streams_reads_what_the_whole_files_say(make_asr, predictor, sizes):
    asr = make_asr(predictor)
    wavs, n_samples = speech(2.0, 1.31, 0.01, 1.6), torch.tensor([16000, 10480, 80, 12800])
    wav_lens = n_samples / 16000
    whole = asr.mods.encoder(wavs, wav_lens)
    words, _ = asr.transcribe_batch(wavs, wav_lens)
    said, frames = stream(asr, wavs, n_samples, sizes)
    assert said == words
    assert len(set(words)) == 4
    for row, part in enumerate(frames):
        torch.testing.assert_close(part, whole[row, : len(part)], rtol=0, atol=1e-4)
        assert (whole[row, len(part) :] == 0).all()


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_characters_are_whole_though_their_bytes_come_in_several_chunks(
    make_asr, byte_tokenizer_path, sizes
):
    asr = make_asr(tokenizer_path=byte_tokenizer_path)
    first, bias = asr.tokenizer.piece_to_id("<0x00>"), asr.mods.decoder.model.joiner.output.bias
    bias[first : first + 128] -= 20  # bytes that are characters by themselves
    wavs, n_samples = speech(2.0, 1.31), torch.tensor([16000, 10480])
    words, tokens = asr.transcribe_batch(wavs, n_samples / 16000)
    assert stream(asr, wavs, n_samples, sizes)[0] == words
    assert words == [asr.tokenizer.decode_ids(ids) for ids in tokens]
    # There are such, broken ones, and letters.
    assert all("\ufffd" in text for text in words)
    assert any(0x80 <= ord(character) != 0xFFFD for text in words for character in text)
    assert any(character.isascii() for text in words for character in text)


@pytest.mark.parametrize("sizes", SIZES[:3])
@torch.no_grad()
def test_a_dual_mode_network_streams_as_a_causal_one(make_asr, sizes):
    options = {"causal": False, "dual_mode": True, "look_ahead": 1}
    asr, full_context = make_asr(**options), make_asr(cls=SubnetASR, **options)
    wavs, n_samples = speech(2.0, 1.31, 1.6), torch.tensor([16000, 10481, 12799])
    features, lengths = asr.mods.encoder.features(wavs, n_samples / 16000)
    expected, _ = full_context.mods.encoder.model.encoder(features, lengths, causal=True)
    words, _ = asr.transcribe_batch(wavs, n_samples / 16000)
    said, frames = stream(asr, wavs, n_samples, sizes)
    assert said == words
    for row, part in enumerate(frames):
        torch.testing.assert_close(part, expected[row, : len(part)], rtol=0, atol=1e-4)
    assert full_context.transcribe_batch(wavs, n_samples / 16000)[0] != words


@pytest.mark.parametrize("look_ahead", [1, 2])
@pytest.mark.parametrize("sizes", SIZES[:3])
def test_a_look_ahead_changes_nothing_about_that(make_asr, look_ahead, sizes):
    asr = make_asr(look_ahead=look_ahead)
    wavs, n_samples = speech(2.0, 1.31, 1.6), torch.tensor([16000, 10481, 12799])
    words, _ = asr.transcribe_batch(wavs, n_samples / 16000)
    assert stream(asr, wavs, n_samples, sizes)[0] == words
    # It is in use: without it, another text is read.
    asr.mods.encoder.model.encoder.subsampling.time_padding = (2, 0)
    assert asr.transcribe_batch(wavs, n_samples / 16000)[0] != words


@pytest.mark.parametrize("rate", [RATE, 16000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_reads_chunk_by_chunk_as_it_reads_as_a_whole(make_asr, tmp_path, rate, channels):
    asr = make_asr()
    path = str(tmp_path / "speech.wav")
    soundfile.write(path, speech(*[2.0] * channels).T.numpy(), rate)
    pieces = list(asr.transcribe_file_streaming(path, chunk_seconds=0.1))
    assert len(pieces) == (2.0 * RATE / rate) / 0.1 + 1
    assert sum(map(bool, pieces)) > 3
    assert "".join(pieces) == asr.transcribe_file(path)
    # A pipe can be opened once only.
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=(tmp_path / "pipe").write_bytes, args=((tmp_path / "speech.wav").read_bytes(),)
    )
    writer.start()
    assert list(asr.transcribe_file_streaming(str(tmp_path / "pipe"), 0.1)) == pieces
    writer.join()


def test_a_stream_takes_no_more_once_it_has_ended(make_asr):
    asr = make_asr()
    wavs = speech(1.0, 1.0)
    context = asr.make_streaming_context(2)
    said = asr.transcribe_chunk(context, wavs, torch.tensor([1.0, 0.5]))
    more = asr.transcribe_chunk(context, speech(1.0, 1.0))
    last = asr.finish(context)
    assert said[1] + more[1] + last[1] == asr.transcribe_batch(wavs[1:, :4000], torch.ones(1))[0][0]
    assert len(said[0] + more[0] + last[0]) > len(said[0])


def test_what_depends_on_the_weights_alone_is_computed_once_a_network(make_asr, monkeypatch):
    asr, wavs, n_samples = make_asr(), speech(2.0), torch.tensor([16000])
    expected, _ = stream(asr, wavs, n_samples, 1600)

    def refuse(_):
        raise AssertionError("computed again")

    monkeypatch.setattr(Modes, "discretise", refuse)
    assert stream(asr, wavs, n_samples, 1600)[0] == expected
    with pytest.raises(AssertionError, match="computed again"):  # as a whole file needs it
        asr.transcribe_batch(wavs, torch.ones(1))


def test_the_state_does_not_grow_with_the_stream(make_asr):
    asr = make_asr(look_ahead=1)
    context, sizes = asr.make_streaming_context(2), []
    for chunk in itertools.repeat(speech(0.32, 0.32), 20):
        asr.transcribe_chunk(context, chunk)
        state = [context.pending, *context.encoder.subsampling, *context.decoder.predictor]
        state += [s for layer in context.encoder.layers for s in layer]
        sizes.append(sum(s.numel() for s in state))
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"causal": False}, "its encoder is not causal"),
        ({"fbank": {"fbank_kind": "speechbrain"}}, "not those of fbank_kind: kaldi"),
        ({"fbank": {"fbank_kind": "kaldi"}}, "with snip_edges: True"),
        (
            {"fbank": {"fbank_kind": "kaldi", "snip_edges": True, "hop_length": 30}},
            "its hop_length is longer than its win_length",
        ),
        ({"norm_type": "sentence"}, "normalised over the whole utterance"),
        ({"beam_size": 2}, "beam search"),
        ({"time_strides": [4, 2]}, "time_strides above 3"),
    ],
)
def test_networks_that_cannot_stream_are_refused(make_asr, options, message):
    with pytest.raises(ConfigError, match=message):
        make_asr(**options).make_streaming_context()


def test_chunks_that_do_not_fit_are_refused(make_asr):
    asr = make_asr()
    context = asr.make_streaming_context(2)
    with pytest.raises(DataError, match="1 streams, the context of 2"):
        asr.transcribe_chunk(context, torch.zeros(1, 80))
    with pytest.raises(DataError, match="not finite"):
        asr.transcribe_chunk(context, torch.full((2, 80), torch.nan))
    with pytest.raises(DataError, match="full scale 1"):
        asr.transcribe_chunk(context, torch.zeros(2, 80, dtype=torch.int16))
    with pytest.raises(DataError, match=r"audio must be \(batch, samples\)"):
        asr.transcribe_chunk(context, torch.zeros(80))
    for lengths in ([2.0, 1.0], [-1.0, 1.0], [torch.nan, 1.0]):
        with pytest.raises(DataError, match=r"fractions in 0\.\.1"):
            asr.transcribe_chunk(context, torch.zeros(2, 80), torch.tensor(lengths))
    with pytest.raises(DataError, match="does not exist"):
        next(asr.transcribe_file_streaming("missing.wav"))


def test_what_a_stream_carries_on_holds_no_graph(make_asr):
    asr = make_asr(look_ahead=1)
    context = asr.make_streaming_context()
    asr.transcribe_chunk(context, speech(0.5))
    asr.finish(context)
    layers = [state for states in context.encoder.layers for state in states]
    assert not any(x.requires_grad for x in (*context.encoder.subsampling, *layers))
