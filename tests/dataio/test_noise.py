"""Noise under speech, against sums over the samples of each utterance."""

import math

import numpy as np
import pytest
import soundfile
import torch

from todm_sb.dataio.noise import AddNoise, noise_of
from todm_sb.utils.errors import ConfigError, DataError

RATE = 8000


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "short.wav", rng.normal(size=50) / 5, RATE)
    soundfile.write(tmp_path / "music" / "stereo.flac", rng.normal(size=(9000, 2)) / 5, 2 * RATE)
    (tmp_path / "LICENSE").write_text("free")
    return tmp_path


def speech():
    torch.manual_seed(7)
    wavs = torch.randn(6, 400)
    lengths = torch.tensor([1.0, 0.5, 0.25, 1.0, 0.75, 1.0])
    return wavs, lengths


def added(noise, wavs, lengths, seed=0):
    torch.manual_seed(seed)
    noisy, same = noise(wavs, lengths)
    assert same is lengths
    return noisy - wavs


def test_noise_is_as_loud_as_asked_and_not_in_padding(folder):
    wavs, lengths = speech()
    for row, wav, n in zip(
        added(AddNoise(folder, RATE, 1.0, (3.0, 9.0)), wavs, lengths),
        wavs,
        (400 * lengths).long().tolist(),
        strict=True,
    ):
        decibels = 10 * math.log10(wav[:n].square().sum() / row[:n].square().sum())
        assert 3.0 <= decibels <= 9.0
        assert not row[n:].any()


def test_noise_is_a_stretch_of_a_file_repeated_where_that_is_short(tmp_path):
    tone = np.sin(np.arange(150)).astype(np.float32) / 2
    soundfile.write(tmp_path / "tone.wav", tone, RATE, subtype="FLOAT")
    wavs, lengths = torch.ones(1, 400), torch.ones(1)
    (row,) = added(AddNoise(tmp_path, RATE, 1.0), wavs, lengths)
    torch.testing.assert_close(row[150:300], row[:150], atol=1e-6, rtol=0)
    assert np.corrcoef(row[:150], tone)[0, 1] == pytest.approx(1.0)
    short = added(AddNoise(tmp_path, RATE, 1.0), wavs[:, :60], lengths).numpy()
    best = [np.corrcoef(short, tone[first : first + 60])[0, 1] for first in range(91)]
    assert max(best) == pytest.approx(1.0, abs=1e-5)


def test_a_share_of_the_utterances_has_noise_and_a_seed_gives_the_same(folder):
    wavs, lengths = torch.ones(400, 20), torch.ones(400)
    noise = AddNoise(folder, RATE, 0.3)
    rows = added(noise, wavs, lengths)
    assert 0.2 < rows.any(1).float().mean() < 0.4
    torch.testing.assert_close(added(AddNoise(folder, RATE, 0.3), wavs, lengths), rows)
    assert not added(noise, wavs, lengths, seed=1).equal(rows)
    assert not added(AddNoise(folder, RATE, 0.0), wavs, lengths).any()


@pytest.mark.parametrize("silent", ["speech", "noise"])
def test_silence_is_left_alone(tmp_path, silent):
    soundfile.write(tmp_path / "x.wav", np.full(500, 0.0 if silent == "noise" else 0.3), RATE)
    wavs = torch.zeros(2, 300) if silent == "speech" else torch.ones(2, 300)
    assert not added(AddNoise(tmp_path, RATE, 1.0), wavs, torch.ones(2)).any()


def test_what_is_wrong_with_a_folder_is_told_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"noise_folder: there is no folder .*nowhere"):
        AddNoise(tmp_path / "nowhere", RATE).check()
    with pytest.raises(ConfigError, match="has no audio files"):
        AddNoise(tmp_path, RATE).check()
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(DataError, match=r"empty.wav is empty"):
        AddNoise(tmp_path, RATE).check()
    (tmp_path / "empty.wav").write_bytes(b"no audio")
    with pytest.raises(DataError, match=r"empty.wav cannot be read"):
        AddNoise(tmp_path, RATE).check()
    soundfile.write(tmp_path / "empty.wav", np.zeros(9), 11127)
    with pytest.raises(DataError, match=r"11127 Hz, which is not converted to 16000 Hz"):
        AddNoise(tmp_path, 16000).check()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_noise_that_is_no_number_is_told_and_heard_by_nobody(tmp_path, value):
    samples = np.full((500, 2), 0.1)
    samples[250, 1] = value
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    noise = AddNoise(tmp_path, RATE, 1.0)
    noise.check()
    with pytest.raises(DataError, match=r"noise_folder: .*x\.wav has samples that are not finite"):
        noise(torch.ones(2, 500), torch.ones(2))


@pytest.mark.parametrize("wrong", [{"share": 1.1}, {"snr": (20, 10)}, {"snr": 10}])
def test_what_makes_no_sense_is_refused(folder, wrong):
    with pytest.raises(ConfigError, match=r"snr|share"):
        AddNoise(folder, RATE, **wrong)


def test_no_folder_is_no_noise(folder):
    assert noise_of(None, RATE) is None
    assert isinstance(noise_of(str(folder), RATE), AddNoise)
