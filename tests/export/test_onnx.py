"""Exported models compute what PyTorch computes, and recognisers transcribe as SubnetASR does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.processing.features import InputNormalization

from todm_sb.cli import FAILED, OK, main
from todm_sb.inference.words import Labels
from todm_sb.nnet.subsampling import ENDLESS
from todm_sb.nnet.transducer import Transducer
from todm_sb.supernet.cost import count_bytes
from todm_sb.utils.errors import ConfigError

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from todm_sb.export.onnx import export_onnx, obstacles_to_sherpa  # noqa: E402
from todm_sb.export.onnx_features import features_model  # noqa: E402
from todm_sb.export.onnx_networks import (  # noqa: E402
    encoder_model,
    joiner_model,
    predictor_model,
    streaming_encoder_model,
)
from todm_sb.export.quantize import packed  # noqa: E402
from todm_sb.inference.onnx import OnnxASR  # noqa: E402

RATE = 8000
FBANK = {
    "sample_rate": RATE,
    "n_mels": 20,
    "n_fft": 256,
    "win_length": 25,
    "hop_length": 10,
    "fbank_kind": "kaldi",
}
CLOSE = {"rtol": 0, "atol": 1e-4}
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def run(session, **feeds):
    feeds = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in feeds.items()}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, feeds)), strict=True))


def normalisation(n_features, norm_type="global"):
    normalize = InputNormalization(norm_type=norm_type).eval()
    normalize.glob_mean = torch.linspace(-6, -4, n_features)
    normalize.glob_std = torch.linspace(2, 4, n_features)
    return normalize


@torch.no_grad()
def encode(model, normalize, features, lengths):
    features = normalize(features, lengths / features.shape[1])
    encoded, n_frames = model.encoder(features, lengths)
    return model.joiner.project_encoder(encoded), n_frames


ENCODERS = [
    {},
    {"n_stack": 2, "time_strides": [2, 3]},
    {"causal": True},
    {"causal": True, "look_ahead": 2, "n_stack": 2},
    {"dual_mode": True, "look_ahead": 1},
]


@pytest.mark.parametrize(
    ("options", "norm_type"), [*((x, "global") for x in ENCODERS), (ENCODERS[1], "sentence")]
)
def test_the_encoder_is_pytorchs_on_batches_of_any_size_and_length(
    make_transducer, options, norm_type
):
    model = make_transducer(**options)
    normalize = normalisation(6, norm_type)
    encoder = session(encoder_model(model, normalize, block=8))
    # From one frame to several blocks, full and partly full.
    for batch, length in ((1, 1), (2, 5), (3, 32), (1, 33), (2, 200)):
        features = 3 * torch.randn(batch, length, 6) - 5
        lengths = torch.randint(1, length + 1, (batch,))
        lengths[0] = length
        expected, n_frames = encode(model, normalize, features, lengths)
        got = run(encoder, x=features, x_lens=lengths)
        assert got["encoder_out_lens"].tolist() == n_frames.tolist()
        torch.testing.assert_close(got["encoder_out"], expected, **CLOSE)


def test_the_size_of_the_blocks_changes_nothing(make_transducer):
    model, normalize = make_transducer(), normalisation(6)
    features, lengths = 3 * torch.randn(2, 150, 6) - 5, torch.tensor([150, 101])
    expected, _ = encode(model, normalize, features, lengths)
    for block in (1, 2, 5, 64):
        got = run(session(encoder_model(model, normalize, block=block)), x=features, x_lens=lengths)
        torch.testing.assert_close(got["encoder_out"], expected, **CLOSE)


def test_the_slow_modes_of_a_trained_size_keep_their_precision(make_transducer):
    model = make_transducer(d_model=16, state_size=16, dt_range=(0.001, 0.5))
    normalize = normalisation(6)
    features, lengths = 3 * torch.randn(1, 4000, 6) - 5, torch.tensor([4000])
    expected, _ = encode(model, normalize, features, lengths)
    got = run(session(encoder_model(model, normalize)), x=features, x_lens=lengths)
    torch.testing.assert_close(got["encoder_out"], expected, rtol=0, atol=1e-3)


def beginning(encoder, batch, n_frames):
    """The state's inputs: zeros."""
    sizes = {"N": batch, **{f"K_{i}": n_frames for i in range(2)}}
    return {
        x.name: np.zeros([sizes.get(n, n) for n in x.shape], TYPES[x.type])
        for x in encoder.get_inputs()
        if x.name not in ("x", "x_lens")
    }


@pytest.mark.parametrize("options", ENCODERS[2:])
@pytest.mark.parametrize("sizes", [[100], [8] * 12 + [4], [40, 12, 21, 27]])
def test_the_streaming_encoder_gives_the_frames_of_the_whole(make_transducer, options, sizes):
    model, normalize = make_transducer(**options).causal_form(), normalisation(6)
    encoder = session(streaming_encoder_model(model, normalize, block=4))
    features, ends = 3 * torch.randn(2, 100, 6) - 5, torch.tensor([100, 61])
    expected, n_frames = encode(model, normalize, features, ends)
    after = torch.randn(2, model.encoder.subsampling.look_ahead, 6)
    chunks = list(features.split(sizes, dim=1))
    chunks[-1] = torch.cat([chunks[-1], after], dim=1)
    n_frames_before = model.encoder.subsampling.time_padding[0]
    state, seen, parts, counts = beginning(encoder, 2, n_frames_before), 0, [], 0
    for chunk in chunks:
        seen += chunk.shape[1]
        known = torch.where(ends <= seen, ends, ENDLESS)
        got = run(encoder, x=chunk, x_lens=known, **state)
        state = {k.removeprefix("next_"): v for k, v in got.items() if k.startswith("next_")}
        parts.append(got["encoder_out"])
        counts = counts + got["encoder_out_lens"]
    together = torch.cat(parts, dim=1)
    assert counts.tolist() == n_frames.tolist()
    for row, n in enumerate(n_frames):
        torch.testing.assert_close(together[row, :n], expected[row, :n], **CLOSE)


def test_only_what_can_stream_is_exported_for_it(make_transducer):
    with pytest.raises(ConfigError, match="not causal"):
        streaming_encoder_model(make_transducer(), normalisation(6))
    with pytest.raises(ConfigError, match="cannot be streamed"):
        streaming_encoder_model(make_transducer(causal=True), normalisation(6, "sentence"))


@torch.no_grad()
def test_an_lstm_reads_label_after_label(make_transducer):
    model = make_transducer("lstm")
    labels = torch.randint(0, 7, (3, 5))
    expected = model.joiner.project_predictor(model.predictor(labels)[0])
    decoder = session(predictor_model(model))
    state = {"h": torch.zeros(3, 1, 6), "c": torch.zeros(3, 1, 6)}
    for t in range(5):
        got = run(decoder, y=labels[:, t : t + 1], **state)
        state = {"h": got["next_h"], "c": got["next_c"]}
        torch.testing.assert_close(got["decoder_out"], expected[:, t], **CLOSE)


@torch.no_grad()
def test_a_stateless_predictor_sees_its_last_labels(make_transducer):
    model = make_transducer("stateless")
    labels = torch.randint(1, 7, (3, 5))
    expected = model.joiner.project_predictor(model.predictor(labels)[0])
    decoder = session(predictor_model(model))
    for before in (0, -1):
        seen = torch.cat([torch.full((3, 1), before), labels], dim=1)
        for t in range(5):
            got = run(decoder, y=seen[:, t : t + 2])
            torch.testing.assert_close(got["decoder_out"], expected[:, t], **CLOSE)


@torch.no_grad()
def test_the_joiner_gives_the_logits_of_a_node(make_transducer):
    model = make_transducer()
    inputs = torch.randn(2, 5, 10)
    got = run(session(joiner_model(model)), encoder_out=inputs[0], decoder_out=inputs[1])
    torch.testing.assert_close(got["logit"], model.joiner(*inputs), **CLOSE)


@pytest.fixture
def make_exported(make_talkative, make_recogniser, char_tokenizer_path, tmp_path):
    """A network in PyTorch, and the folder that was written of it; ``small``: its 8-bit form is in
    the folder's ``int8``."""

    def make(predictor="stateless", max_symbols=1, small=False, **encoder):
        model = make_talkative(predictor, vocab_size=17, n_features=20, **encoder)
        asr = make_recogniser(model, {"fbank_kind": "kaldi"}, max_symbols=max_symbols)
        normalize, own = asr.mods.normalize, normalisation(20)
        normalize.glob_mean, normalize.glob_std = own.glob_mean, own.glob_std
        parts = model, normalize, char_tokenizer_path, FBANK, max_symbols
        export_onnx(tmp_path, *parts)
        if small:
            export_onnx(tmp_path / "int8", *parts, in_8_bits=True)
        return asr, tmp_path

    return make


def speech(n, seconds=2.0):
    t = torch.arange(round(seconds * RATE)) / RATE
    tones = torch.sin(300 * t * (2 + torch.sin(4 * t + torch.rand(n, 1))))
    return 0.2 * tones + 0.3 * torch.randn(n, len(t)) * torch.sin(9 * t) ** 2


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"predictor": "lstm", "max_symbols": 3, "causal": True},
        {"dual_mode": True},
        {"predictor": "lstm", "max_symbols": 3, "causal": True, "time_strides": [4, 2]},
    ],
)
def test_onnxruntime_reads_what_pytorch_reads(make_exported, options):
    asr, folder = make_exported(**options)
    wavs, wav_lens = speech(3), torch.tensor([1.0, 0.61, 0.3])
    words, tokens = asr.transcribe_batch(wavs, wav_lens)
    got_words, got_tokens = OnnxASR(folder).transcribe_batch(wavs, wav_lens)
    assert got_tokens == tokens
    assert got_words == words
    assert min(map(len, tokens)) > 2
    streams = ("causal" in options or "dual_mode" in options) and "time_strides" not in options
    assert (folder / "streaming_encoder.onnx").exists() == streams


def test_sherpa_reads_what_pytorch_reads(make_exported):
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs the extra onnx")
    asr, folder = make_exported()
    recognizer = sherpa_onnx.OfflineRecognizer.from_transducer(
        **{name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")},
        tokens=str(folder / "tokens.txt"),
        sample_rate=RATE,
        feature_dim=20,
    )
    streams, texts = [], []
    for wav in speech(4):
        texts += asr.transcribe_batch(wav.unsqueeze(0), torch.ones(1))[0]
        streams.append(recognizer.create_stream())
        streams[-1].accept_waveform(RATE, wav.numpy())
    recognizer.decode_streams(streams)
    assert [s.result.text.split() for s in streams] == [text.split() for text in texts]
    assert len(set(texts)) == 4


def test_a_piece_with_a_space_is_not_for_sherpa(make_transducer, tmp_path):
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(["A C A"]),
        model_prefix=str(tmp_path / "spaced"),
        model_type="char",
        vocab_size=5,
        user_defined_symbols=["A B"],
        bos_id=-1,
        eos_id=-1,
    )
    model = make_transducer("stateless", vocab_size=5, n_features=20)
    path = tmp_path / "spaced.model"
    obstacles = export_onnx(tmp_path / "onnx", model, normalisation(20), path, FBANK, 1)
    assert obstacles == ["no piece of the tokenizer may hold a space"]
    assert OnnxASR(tmp_path / "onnx").text([1, 2, 1]) == "A B A B"


@pytest.mark.parametrize(
    ("predictor", "change", "max_symbols", "message"),
    [
        ("lstm", {}, 1, "stateless"),
        ("stateless", {"fbank_kind": "speechbrain"}, 1, "fbank_kind: kaldi"),
        ("stateless", {"snip_edges": True}, 1, "without snip_edges"),
        ("stateless", {"win_length": 32}, 1, "25 ms"),
        ("stateless", {}, 5, "max_symbols"),
    ],
)
def test_what_sherpa_would_read_otherwise_is_told(
    make_transducer, predictor, change, max_symbols, message
):
    model = make_transducer(predictor)
    (obstacle,) = obstacles_to_sherpa(model, {**FBANK, **change}, max_symbols)
    assert message in obstacle
    assert obstacles_to_sherpa(make_transducer("stateless"), FBANK, 1) == []


def test_a_quantised_folder_is_smaller_and_nearly_as_exact(make_exported, tmp_path, caplog):
    with caplog.at_level("WARNING"):  # also after a training, which logs more
        asr, folder = make_exported(small=True, d_model=64, ffn_dims=[256, 256], state_size=16)
    small = folder / "int8"
    assert not caplog.records  # onnxruntime would give advice that is not for users
    for path in folder.glob("*.onnx"):
        props = [onnx.load(f / path.name).metadata_props for f in (folder, small)]
        assert sorted(map(str, props[0])) == sorted(map(str, props[1]))
    assert {p.name for p in small.glob("*.onnx")} == {p.name for p in folder.glob("*.onnx")}
    sizes = [sum(p.stat().st_size for p in f.glob("*.onnx")) for f in (folder, small)]
    assert sizes[1] < 0.5 * sizes[0]
    # What a search counts is what the weights take.
    models = [onnx.load(small / f"{name}.onnx") for name in ("encoder", "decoder", "joiner")]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8)
    weights = [w for m in models for w in m.graph.initializer if w.data_type in floats]
    stored = sum(onnx.numpy_helper.to_array(weight).nbytes for weight in weights)
    assert count_bytes(asr.mods.encoder.model, dtype="int8") == pytest.approx(stored, rel=0.03)
    wavs, wav_lens = speech(2), torch.ones(2)
    exact, _ = OnnxASR(folder).encode(wavs, wav_lens)
    rough, _ = OnnxASR(small).encode(wavs, wav_lens)
    assert 0 < np.abs(rough - exact).mean() < 0.1 * np.abs(exact).mean()


def test_an_utterance_reads_alike_alone_and_in_a_batch_in_8_bits(make_exported):
    _, folder = make_exported(predictor="lstm", max_symbols=3, small=True)
    asr = OnnxASR(folder / "int8")
    waves = [(0.1**i * wave[: len(wave) // (i + 1)]).numpy() for i, wave in enumerate(speech(3))]
    waves.append(np.zeros(0, np.float32))
    alone = [asr.recognise([wave])[0] for wave in waves]
    assert asr.recognise(waves) == alone
    assert len({found.text for (found,) in alone}) == 4
    # Nor is what lies in the padding heard.
    wavs, wav_lens = np.stack([np.resize(x, 2 * RATE) for x in waves[:3]]), [1.0, 0.5, 1 / 3]
    words, _ = asr.transcribe_batch(wavs, wav_lens)
    assert words == [found.text for (found,) in alone[:3]]
    encoded, n_frames = asr.encode(wavs, wav_lens)
    for row, wave, n in zip(encoded, waves[:3], n_frames, strict=True):
        np.testing.assert_array_equal(row[:n], asr.encode(wave[None], [1.0])[0][0])


def test_a_quantised_folder_replaces_that_of_an_earlier_causal_network(make_exported, tmp_path):
    make_exported(small=True, causal=True)
    assert (tmp_path / "int8" / "streaming_encoder.onnx").is_file()
    make_exported(small=True)
    assert not (tmp_path / "int8" / "streaming_encoder.onnx").exists()
    (tmp_path / "int8" / "tokens.txt").unlink()
    with pytest.raises(ConfigError, match=r"tokens\.txt does not exist"):
        OnnxASR(tmp_path / "int8")


@pytest.mark.parametrize("shape", [(40, 8), (5, 64), (4, 3, 3, 3)])
def test_packed_weights_are_within_half_a_step(shape):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0] *= 100
    numbers, scale = packed(weight)
    assert np.abs(numbers).max() == 127
    assert np.all(np.abs(numbers * scale - weight) <= 0.51 * scale)
    # Rows have their own scales, unless the scales would take more room than the numbers.
    assert scale.size == {(40, 8): 1, (5, 64): 5, (4, 3, 3, 3): 4}[shape]


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"features\.onnx does not exist"):
        OnnxASR(tmp_path)


@pytest.mark.parametrize("norm_type", ["global", "sentence"])
def test_no_sample_reads_as_no_word(make_transducer, char_tokenizer_path, tmp_path, norm_type):
    model = make_transducer("lstm", vocab_size=17, n_features=20)
    with torch.no_grad():
        model.joiner.output.bias[model.blank] -= 5
    normalize = normalisation(20, norm_type)
    export_onnx(tmp_path / "onnx", model, normalize, char_tokenizer_path, FBANK, 2)
    asr, speech = OnnxASR(tmp_path / "onnx"), torch.randn(1, RATE)
    (alone,), _ = asr.transcribe_batch(speech, torch.ones(1))
    assert alone
    assert asr.transcribe_batch(torch.zeros(0, RATE), torch.zeros(0)) == ([], [])
    assert asr.transcribe_batch(torch.zeros(2, 0), torch.ones(2)) == (["", ""], [[], []])
    words, _ = asr.transcribe_batch(speech.expand(2, -1), torch.tensor([1.0, 0.0]))
    assert words == [alone, ""]


# What a device has not; importing it fails.
DEVICE = """
import sys
for name in ("torch", "torchaudio", "speechbrain", "sentencepiece", "hyperpyyaml", "ruamel", "tqdm",
             "safetensors", "onnx", "scipy", "matplotlib"):
    sys.modules[name] = None
from todm_sb.cli import main
sys.exit(main())
"""


def test_a_device_without_pytorch_reads_what_subnet_asr_reads(make_exported, tmp_path):
    asr, folder = make_exported(predictor="lstm", max_symbols=3, small=True)
    path, missing = tmp_path / "speech.wav", str(tmp_path / "missing.wav")
    soundfile.write(path, speech(1)[0].numpy(), RATE, subtype="FLOAT")
    command = [sys.executable, "-c", DEVICE, "transcribe", "--json", str(path), missing, "--model"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    read, failed = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (FAILED, "")
    assert (read["text"], read["seconds"]) == (asr.transcribe_file(str(path)), 2.0)
    assert read["text"]
    assert failed == {"audio": missing, "error": f"audio file {missing} does not exist"}
    needed = (folder / "requirements.txt").read_text().splitlines()[1:]
    assert [line.partition(">")[0] for line in needed] == [
        "numpy",
        "onnxruntime",
        "soundfile",
        "soxr",
    ]
    # Whose networks are not for it.
    done = subprocess.run([*command, str(tmp_path / "elsewhere")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "need PyTorch: pip install 'huggingface_hub" in done.stderr
    assert OnnxASR(tmp_path / "int8").transcribe_file(path)


def test_transcribe_takes_a_folder_of_onnx_models_as_it_takes_a_bundle(
    make_exported, tmp_path, capsys
):
    asr, folder = make_exported()
    path = tmp_path / "speech.wav"
    soundfile.write(path, speech(1)[0].numpy(), RATE, subtype="FLOAT")
    assert main(["transcribe", str(path), f"--model={folder}"]) == OK
    assert capsys.readouterr().out == f"{path}\t{asr.transcribe_file(str(path))}\n"
    # What is longer than the utterances of training is cut by both.
    network = OnnxASR(folder)
    whole = network.transcribe_file(path)
    network.longest_seconds = asr.hparams.longest_seconds = 1.0
    assert network.transcribe_file(path) == asr.transcribe_file(path) != whole


def test_words_have_the_times_and_confidences_that_pytorch_finds(make_exported, tmp_path, capsys):
    asr, folder = make_exported(predictor="lstm", max_symbols=3)
    waves = [wave.numpy() for wave in speech(2)]
    waves[1] = waves[1][:9000]
    for got, expected in zip(
        OnnxASR(folder).recognise(waves), asr.recogniser().recognise(waves), strict=True
    ):
        (got,), (expected, *_) = got, expected
        assert got.words
        assert [word.text for word in got.words] == [word.text for word in expected.words]
        for mine, theirs in zip(got.words, expected.words, strict=True):
            assert (mine.start, mine.end) == pytest.approx((theirs.start, theirs.end))
            assert mine.confidence == pytest.approx(theirs.confidence, abs=1e-3)
        assert got.score == pytest.approx(expected.score, abs=1e-2)
    (tmp_path / "recordings").mkdir()
    soundfile.write(tmp_path / "recordings" / "a.wav", waves[0], RATE, subtype="FLOAT")
    argv = ["transcribe", str(tmp_path / "recordings"), f"--model={folder}", "--format=ctm"]
    assert main([*argv, f"--output={tmp_path / 'out'}"]) == OK
    (words, *_) = OnnxASR(folder).recognise(waves[:1])[0]
    lines = (tmp_path / "out" / "a.ctm").read_text().splitlines()
    assert [line.split()[4] for line in lines] == [word.text for word in words.words]


def test_a_frame_is_as_many_whole_samples_as_its_hop(
    make_transducer, char_tokenizer_path, tmp_path, monkeypatch
):
    model = make_transducer("stateless", vocab_size=17, n_features=20)
    fbank = {**FBANK, "sample_rate": 22050, "n_fft": 1024}  # 220 samples, not 220.5
    export_onnx(tmp_path, model, normalisation(20), char_tokenizer_path, fbank, 1)
    asr = OnnxASR(tmp_path)
    monkeypatch.setattr(asr, "search", lambda *encoded: [Labels([9], [50], [0.0])])
    ((found,),) = asr.recognise([np.zeros(3 * 22050, np.float32)])
    assert found.words[0].start == pytest.approx(50 * 4 * 220 / 22050)


def test_the_longest_utterance_of_training_is_told(make_transducer, char_tokenizer_path, tmp_path):
    model, normalize = make_transducer("lstm", vocab_size=17, n_features=20), normalisation(20)
    for folder, in_8_bits in (("a", False), ("b", True)):
        parts = model, normalize, char_tokenizer_path, FBANK, 2, 3.5
        export_onnx(tmp_path / folder, *parts, in_8_bits=in_8_bits)
    assert [OnnxASR(tmp_path / x).longest_seconds for x in "ab"] == [3.5, 3.5]


def test_other_sampling_rates_are_converted(make_exported, tmp_path):
    pytest.importorskip("soxr", reason="needs the extra onnx")
    asr, folder = make_exported()
    t = np.arange(2 * 16000) / 16000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (440, 1500)], 1)
    soundfile.write(tmp_path / "stereo.wav", 0.3 * tones, 16000)
    got = OnnxASR(folder).load_audio(tmp_path / "stereo.wav")
    expected = 0.15 * tones.sum(1)[::2]  # both are below half of either rate
    assert (got.dtype, got.shape) == (np.float32, expected.shape)
    middle = slice(200, -200)
    np.testing.assert_allclose(got[middle], expected[middle], atol=1e-3)
    theirs = asr.load_audio(tmp_path / "stereo.wav").numpy()
    np.testing.assert_allclose(got[middle], theirs[middle], atol=5e-3)


def test_what_is_wrong_with_a_folder_is_one_line(make_exported, make_transducer):
    _, folder = make_exported()
    joiner = (folder / "joiner.onnx").read_bytes()
    (folder / "joiner.onnx").write_bytes(joiner[: len(joiner) // 2])
    with pytest.raises(ConfigError, match=r"joiner\.onnx is no ONNX model, or a damaged one"):
        OnnxASR(folder)
    (folder / "joiner.onnx").write_bytes(joiner)
    tokens = (folder / "tokens.txt").read_bytes()
    for damaged, message in (
        (tokens[: tokens.index(b" 9\n") + 3], "has 10 pieces, but joiner.onnx 17 labels"),
        (tokens.replace(b" 9\n", b" 8\n"), "line 10, .* must end in the id 9"),
        (b"", "line 1, '', must end in the id 0"),
        (b"\xff" + tokens, "not UTF-8"),
    ):
        (folder / "tokens.txt").write_bytes(damaged)
        with pytest.raises(ConfigError, match=rf"tokens\.txt .*{message}"):
            OnnxASR(folder)
    (folder / "tokens.txt").write_bytes(tokens)
    for name, other in (("features", "encoder"), ("decoder", "joiner"), ("joiner", "features")):
        own = (folder / f"{name}.onnx").read_bytes()
        (folder / f"{name}.onnx").write_bytes((folder / f"{other}.onnx").read_bytes())
        with pytest.raises(ConfigError, match=rf"{name}\.onnx was not written by todm-sb export"):
            OnnxASR(folder)
        (folder / f"{name}.onnx").write_bytes(own)
    narrow = Transducer(**{**make_transducer(vocab_size=17).config, "d_joint": 9})
    for name, other in (
        ("features", features_model({**FBANK, "n_mels": 21})),
        ("decoder", predictor_model(narrow)),
        ("joiner", joiner_model(narrow)),
    ):
        own = (folder / f"{name}.onnx").read_bytes()
        onnx.save(other, folder / f"{name}.onnx")
        with pytest.raises(ConfigError, match="was not written by todm-sb export"):
            OnnxASR(folder)
        (folder / f"{name}.onnx").write_bytes(own)
    # Of another writer.
    written = onnx.load(folder / "encoder.onnx")
    for key, value in (
        ("max_symbols", "0"),
        ("subsampling_factor", "-4"),
        ("longest_seconds", "nan"),
        ("longest_seconds", "inf"),
        ("longest_seconds", "0"),
        ("fbank", "{}"),
    ):
        model = onnx.ModelProto.FromString(written.SerializeToString())
        told = {x.key: x.value for x in model.metadata_props}
        onnx.helper.set_model_props(model, {**told, key: value})
        onnx.save(model, folder / "encoder.onnx")
        with pytest.raises(ConfigError, match="was not written by todm-sb export"):
            OnnxASR(folder)
    (folder / "features.onnx").unlink()
    with pytest.raises(ConfigError, match=r"features\.onnx does not exist"):
        OnnxASR(folder)
