import shutil

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.utils.fetching import LocalStrategy

from todm_sb.decoders.greedy import greedy_search
from todm_sb.decoders.hypothesis import Hypothesis
from todm_sb.export.speechbrain import export_folder
from todm_sb.inference import StreamingSubnetASR, SubnetASR, recogniser
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.subnet_recogniser import SubnetRecogniser
from todm_sb.training.runs import weights_id
from todm_sb.utils.errors import ConfigError, DataError

RATE = 16000


@pytest.fixture
def asr(bundle):
    return SubnetASR.from_bundle(bundle, run_opts={"device": "cpu"})


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)


@pytest.fixture
def save(tmp_path):
    """Writes samples as a file of floating-point numbers."""

    def write(samples, rate=RATE, name="audio.wav"):
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT")
        return str(tmp_path / name)

    return write


def test_the_subnet_is_chosen_when_the_bundle_is_loaded(bundle):
    def n_parameters(**choice):
        model = SubnetASR.from_bundle(bundle, **choice).mods.encoder.model
        return sum(p.numel() for p in model.parameters())

    largest, smallest = n_parameters(), n_parameters(subnet="min")
    assert n_parameters(subnet="max") == largest > smallest
    assert n_parameters(max_params=largest - 1) == smallest
    assert n_parameters(subnet='{"layers": [0, 2], "ffn_dims": [6, 6]}') not in (largest, smallest)
    with pytest.raises(ConfigError, match=rf"bundle {bundle}: unknown subnet 'huge'"):
        SubnetASR.from_bundle(bundle, subnet="huge")


def test_a_bundle_reads_as_the_network_it_was_written_from(bundle_parts, asr, noise, save):
    text = asr.transcribe_file(save(noise))
    assert len(text) > 5
    words, tokens = asr.transcribe_batch(torch.from_numpy(noise).unsqueeze(0), torch.ones(1))
    assert words == [text]
    features = asr.mods.encoder.features(torch.from_numpy(noise).unsqueeze(0), torch.ones(1))
    encoded, lengths = bundle_parts["model"].encoder(*features)
    expected = greedy_search(bundle_parts["model"], encoded, lengths, bundle_parts["max_symbols"])
    assert tokens == [expected[0].tokens]


def test_of_many_files_few_are_held_and_each_reads_as_alone(asr, noise, save, monkeypatch):
    monkeypatch.setattr(recogniser, "WINDOW_FILES", 2)
    lengths = (RATE, 300, RATE // 2, 4000, RATE)
    paths = [save(noise[:n], name=f"{i}.wav") for i, n in enumerate(lengths)]
    heard, own_load, own_recognise = [], SubnetRecogniser.load, SubnetRecogniser.recognise

    def load(self, path):
        heard.append(path)
        return own_load(self, path)

    def recognise(self, waves):
        heard.append(len(waves))
        return own_recognise(self, waves)

    monkeypatch.setattr(SubnetRecogniser, "load", load)
    monkeypatch.setattr(SubnetRecogniser, "recognise", recognise)
    found = asr.transcribe(paths)
    assert heard == [*paths[:2], 2, *paths[2:4], 2, paths[4], 1]
    assert [x.text for x in found] == [asr.transcribe([path])[0].text for path in paths]
    assert [x.seconds for x in found] == [n / RATE for n in lengths]
    # One that is missing is told before anything is heard.
    heard.clear()
    for missing in ("x.wav", "y.wav"):
        paths.insert(4, missing)
    with pytest.raises(DataError, match=r"^audio file y\.wav does not exist$"):
        asr.transcribe(paths)
    assert heard == []


def test_alternatives_are_the_best_of_each_text(asr, noise, monkeypatch):
    mark, one, two = map(asr.tokenizer.piece_to_id, ("\u2581", "O", "T"))
    spelt = [[one], [mark, one], [two], [mark, two], [one, two], []]
    found = [
        Hypothesis(labels, [*range(len(labels))], [-0.5] * len(labels), -float(i))
        for i, labels in enumerate(spelt)
    ]

    def alternatives(nbest):
        found_by = asr.recogniser(Decoding(8, nbest))
        monkeypatch.setattr(found_by.searcher, "search", lambda *_: [found])
        return [(x.text, x.score) for x in found_by.recognise([noise])[0]]

    assert alternatives(8) == [("O", 0.0), ("T", -2.0), ("OT", -4.0), ("", -5.0)]
    assert alternatives(3) == alternatives(8)[:3]
    assert alternatives(1) == [("O", 0.0)]


def test_as_many_alternatives_are_told_as_the_beam_has_texts_for(asr, noise):
    beam = [x.text for x in asr.recogniser(Decoding(8, 8)).recognise([noise])[0]]
    assert len({*beam}) == len(beam) > 2
    assert [x.text for x in asr.recogniser(Decoding(8, 2)).recognise([noise])[0]] == beam[:2]


def test_a_network_that_has_transcribed_can_still_learn(asr, noise):
    batch = torch.from_numpy(noise).unsqueeze(0), torch.ones(1)
    asr.transcribe_batch(*batch)  # keeps kernels that no gradient may pass
    encoder = asr.mods.encoder
    with torch.no_grad():
        kept = encoder(*batch)
    ssm = encoder.model.encoder.layers[0].ssm.forward_ssms[0].C.requires_grad_()
    learning = encoder(*batch)
    learning.sum().backward()
    assert ssm.grad.abs().max() > 0
    torch.testing.assert_close(learning.detach(), kept)
    words, _ = asr.transcribe_batch(*batch)
    with torch.no_grad():
        ssm.mul_(-3)
    assert asr.transcribe_batch(*batch)[0] != words


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 192000])
def test_other_sampling_rates_are_converted(asr, rate, save):
    seconds = torch.arange(rate) / rate
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * seconds)
    found = asr.load_audio(save(tone.numpy(), rate))
    expected = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(RATE) / RATE)
    assert len(found) == RATE
    # The filter has nothing to look at beyond the ends.
    torch.testing.assert_close(found[400:-400], expected[400:-400], atol=0.01, rtol=0)
    assert isinstance(asr.transcribe_file(save(tone.numpy(), rate)), str)


def test_channels_are_averaged(asr, noise, save):
    stereo = np.stack([noise, 3 * noise], axis=1)
    found = asr.load_audio(save(stereo))
    np.testing.assert_allclose(found.numpy(), 2 * noise, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 100])
@pytest.mark.parametrize("rate", [8000, RATE, 44100])
def test_a_few_samples_read_as_some_text(asr, noise, save, n, rate):
    assert isinstance(asr.transcribe_file(save(noise[:n], rate)), str)


def test_silence_reads_as_some_text(asr, noise, save):
    assert isinstance(asr.transcribe_file(save(0 * noise)), str)


def test_audio_longer_than_a_block_is_read_whole(asr, noise, save, monkeypatch):
    monkeypatch.setattr("todm_sb.inference.audio_file.BLOCK", 999)
    np.testing.assert_array_equal(asr.load_audio(save(noise)).numpy(), noise)


def spoilt(value):
    def spoil(noise):
        noise = noise.copy()
        noise[5] = value
        return noise, RATE

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt(np.nan), "not finite numbers"),
        (spoilt(np.inf), "not finite numbers"),
        (spoilt(1e12), r"samples up to 1e\+12, where full scale is 1"),
        (lambda noise: (noise[:0], RATE), "holds no audio"),
        (lambda noise: (noise, 11127), "unusual sampling rate of 11127 Hz: convert it to 16000 Hz"),
        (lambda noise: (noise, 1), "unusual sampling rate of 1 Hz"),
        (lambda noise: (noise, 1000003), "unusual sampling rate of 1000003 Hz"),
    ],
)
def test_what_cannot_be_heard_is_one_line_with_the_path(asr, noise, save, spoil, message):
    path = save(*spoil(noise))
    with pytest.raises(DataError, match=message) as caught:
        asr.transcribe_file(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_breaks_off_is_named(asr, noise, tmp_path):
    path = tmp_path / "broken.flac"
    soundfile.write(path, np.tile(noise, 5), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{path} cannot be read as audio"):
        asr.transcribe_file(str(path))


@pytest.mark.parametrize(
    ("wavs", "lens", "message"),
    [
        (torch.zeros(RATE), torch.ones(1), r"audio must be \(batch, samples\)"),
        (torch.zeros(1, RATE, 2), torch.ones(1), r"audio must be \(batch, samples\)"),
        (torch.zeros(2, RATE), torch.ones(1), r"lengths \(batch,\)"),
        (torch.zeros(1, RATE), torch.tensor([1.5]), "fractions in 0..1"),
        (torch.zeros(1, RATE), torch.tensor([float("nan")]), "fractions in 0..1"),
        (torch.zeros(1, RATE, dtype=torch.int16), torch.ones(1), "floating-point"),
        (torch.full((1, RATE), float("nan")), torch.ones(1), "not finite"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused(asr, wavs, lens, message):
    with pytest.raises(DataError, match=message):
        asr.transcribe_batch(wavs, lens)


@pytest.fixture
def folders(bundle_parts, make_transducer, tmp_path):
    """Two networks that differ in their weights alone, as SpeechBrain's folders."""
    parts = {**bundle_parts, "hop": 160}
    config = bundle_parts["model"].config["encoder"]
    for name, seed in (("a", 0), ("b", 1)):
        parts["model"] = make_transducer(vocab_size=17, seed=seed, **config)
        export_folder(tmp_path / name, **parts)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("hyperparams.yaml", lambda data: data[: len(data) // 2]),
        ("hyperparams.yaml", lambda data: data.replace(b'"d_joint"', b'"d_of_tomorrow"')),
        ("model.ckpt", lambda data: b""),
        ("model.ckpt", lambda data: b"version https://git-lfs.github.com/spec/v1\n"),
        ("normalize.ckpt", lambda data: b"version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_a_damaged_folder_is_one_line(folders, name, damage):
    path = folders[0] / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"a cannot be loaded: .") as caught:
        SubnetASR.from_hparams(folders[0])
    assert "\n" not in str(caught.value)


def weights(asr):
    return weights_id(asr.mods.encoder.model)


@pytest.mark.parametrize(
    "load",
    [
        SubnetASR.from_hparams,
        StreamingSubnetASR.from_hparams,
        lambda source, **options: SubnetASR.from_supernet(source, "max", **options),
    ],
)
@pytest.mark.parametrize("strategy", [LocalStrategy.SYMLINK, LocalStrategy.COPY])
def test_a_network_is_that_of_its_folder_wherever_another_was_kept(
    folders, tmp_path, monkeypatch, load, strategy
):
    monkeypatch.chdir(tmp_path)
    own = [weights(load(folder)) for folder in folders]
    assert own[0] != own[1]
    options = {"savedir": tmp_path / "kept", "local_strategy": strategy}
    assert [weights(load(folder, **options)) for folder in folders] == own
    # Exported anew, under the same name.
    shutil.rmtree(folders[0])
    shutil.copytree(folders[1], folders[0])
    assert weights(load("a", **options)) == own[1]
    assert weights(load("b", savedir="a")) == own[1]
    assert weights(load("a", savedir="a")) == own[1]
    # Nothing is left where the process happens to be.
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"}
