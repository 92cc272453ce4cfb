"""Audio of any rate, any number of channels, any format, and parts of it."""

import numpy as np
import pytest
import soundfile
from speechbrain.dataio.preprocess import AudioNormalizer

from todm_sb.dataio.audio import Conversion, audio_fault, read_samples
from todm_sb.dataio.check import Limits, check_manifest
from todm_sb.dataio.fingerprint import dev_set_id
from todm_sb.dataio.manifest import Row, write_csv
from todm_sb.dataio.pipeline import BrokenAudio, SpeechDataset
from todm_sb.dataio.tokenizer import get_tokenizer
from todm_sb.utils.errors import DataError

RATE, BOTH = 16000, Conversion(resample=True, mixdown=True)


def sines(seconds, rate, *frequencies):
    """A channel for each frequency, in Hz."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * f * t) for f in frequencies], axis=1)


def loudness(samples, frequency):
    """Amplitude of a frequency, by the sum that defines it."""
    t = np.arange(len(samples)) / RATE
    return 2 * abs(np.mean(samples * np.exp(-2j * np.pi * frequency * t)))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_and_channels_sound_as_they_did(tmp_path, rate):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sines(1.0, rate, 440, 1000, 2500), rate, subtype="PCM_24")
    assert audio_fault(path, 1.0, RATE, conversion=BOTH) is None
    samples = read_samples(path, 1.0, RATE, BOTH)
    assert samples.dtype == np.float32
    assert samples.shape == (RATE,)
    inner = samples[1600:-1600]  # whole periods, without the ends that the filter blurs
    for frequency in (440, 1000, 2500):
        assert loudness(inner, frequency) == pytest.approx(0.1, abs=0.002)
    assert loudness(inner, 3300) < 0.001


def test_a_converted_file_is_what_a_recogniser_hears(tmp_path):
    path = str(tmp_path / "a.wav")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (48000, 2)).astype("float32")
    soundfile.write(path, noise, 48000, subtype="FLOAT")
    import torch

    heard = AudioNormalizer(RATE)(torch.from_numpy(noise), 48000)
    np.testing.assert_allclose(read_samples(path, 1.0, RATE, BOTH), heard, atol=1e-6)


FORMATS = ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"]


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_libsndfile_are_read_whole_and_in_parts(tmp_path, kind):
    path, rate = str(tmp_path / f"a.{kind.lower()}"), 48000
    wave = np.r_[sines(1.0, rate, 440), sines(1.0, rate, 1000)]
    soundfile.write(path, np.c_[wave, wave], rate, format=kind)
    seconds = soundfile.info(path).duration
    assert seconds == pytest.approx(2.0, abs=0.1)
    assert audio_fault(path, seconds, RATE, conversion=BOTH) is None
    for part in ((1.2, 1.7), (1.2 * rate, 1.7 * rate)):
        assert audio_fault(path, 0.5, RATE, True, BOTH, part) is None
        samples = read_samples(path, 0.5, RATE, BOTH, part)
        assert samples.shape == (8000,)
        assert loudness(samples[800:-800], 1000) == pytest.approx(0.3, abs=0.02)
        assert loudness(samples[800:-800], 440) < 0.02


@pytest.mark.parametrize("kind", [("WAV", "GSM610"), ("AU", "G721_32")])
def test_telephony_is_read_whole_and_in_parts(tmp_path, kind):
    path, rate = str(tmp_path / f"a.{kind[0].lower()}"), 8000
    soundfile.write(path, sines(10.0, rate, 440)[:, 0], rate, subtype=kind[1])
    expected, _ = soundfile.read(path, dtype="float32")
    seconds = len(expected) / rate
    for whole in (True, False):
        assert audio_fault(path, seconds, rate, whole) is None
        assert audio_fault(path, 0.5, rate, whole, part=(9.1, 9.6)) is None
    np.testing.assert_array_equal(read_samples(path, seconds, rate), expected)
    part = read_samples(path, 0.5, rate, part=(9.1, 9.6))
    np.testing.assert_array_equal(part, expected[round(9.1 * rate) : round(9.6 * rate)])


def test_a_part_in_seconds_and_one_in_samples_are_the_same_samples(tmp_path):
    path, rng = str(tmp_path / "a.flac"), np.random.default_rng(1)
    wave = rng.integers(-(2**14), 2**14, RATE).astype("int16")
    soundfile.write(path, wave, RATE)
    expected = wave[4000:12000] / 2**15
    for part in ((0.25, 0.75), (4000, 12000)):
        assert audio_fault(path, 0.5, RATE, True, part=part) is None
        np.testing.assert_array_equal(read_samples(path, 0.5, RATE, part=part), expected)


@pytest.mark.parametrize("start", [3.0, 5.06, 7.2])
def test_a_part_of_an_mp3_is_the_same_as_in_the_whole(tmp_path, start):
    path, rate = str(tmp_path / "a.mp3"), 48000
    quiet = (np.floor(np.arange(10 * rate) / rate) % 2)[:, None]
    soundfile.write(path, sines(10.0, rate, 440) * quiet + sines(10.0, rate, 1000), rate)
    whole, _ = soundfile.read(path)
    first = round(start * rate)
    samples = read_samples(path, 1.0, None, part=(start, start + 1.0))
    np.testing.assert_allclose(samples, whole[first : first + rate], atol=1e-4)


@pytest.mark.parametrize(
    ("duration", "part", "cause"),
    [
        (0.5, (0.25, 0.9), "part of another length than its duration"),
        (0.5, (4000, 11000), "part of another length than its duration"),
        (0.5, (0.75, 1.25), "part that goes beyond the end"),
        (0.5, (12000, 20000), "part that goes beyond the end"),
        (0.5, (3.0, 3.5), "part that goes beyond the end"),
        (0.01, (0.5, 0.50001), "zero length"),
    ],
)
def test_a_part_that_is_not_there_is_a_fault(tmp_path, duration, part, cause):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sines(1.0, RATE, 440), RATE)
    for whole in (True, False):
        found = audio_fault(path, duration, RATE, whole, part=part)
        assert cause in found[0]
        assert path in found[1]
    with pytest.raises(DataError, match=cause):
        read_samples(path, duration, RATE, part=part)


@pytest.mark.parametrize(
    ("conversion", "cause"),
    [
        (Conversion(), "wrong sample rate"),
        (Conversion(mixdown=True), "wrong sample rate"),
        (Conversion(resample=True), "more than one channel"),
        (BOTH, None),
    ],
)
def test_what_may_not_be_converted_is_a_fault(tmp_path, conversion, cause):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sines(1.0, 48000, 440, 1000), 48000)
    found = audio_fault(path, 1.0, RATE, conversion=conversion)
    assert (found and found[0]) == cause


@pytest.mark.parametrize("rate", [3999, 11127])
def test_a_rate_that_is_too_low_or_takes_a_huge_filter_is_a_fault(tmp_path, rate):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sines(1.0, rate, 440), rate)
    assert audio_fault(path, 1.0, RATE, conversion=BOTH)[0] == "unusual sample rate"


def test_a_dataset_loads_what_its_rows_say(tmp_path):
    wav = str(tmp_path / "a.wav")
    soundfile.write(wav, np.r_[sines(1.0, 48000, 440, 440), sines(1.0, 48000, 1000, 1000)], 48000)
    rows = [
        Row("first", 0.9, wav, "s", "ONE", 0.0, 0.9),
        Row("second", 1.0, wav, "s", "TWO", 48000, 96000),
        Row("whole", 2.0, wav, "s", "ONE TWO"),
    ]
    write_csv(tmp_path / "m.csv", rows)
    tokenizer = get_tokenizer(str(tmp_path), 7, str(tmp_path / "m.csv"), "char")
    limits = Limits(RATE, tokenizer=tokenizer, conversion=BOTH)
    record = tmp_path / "faults.csv"
    report = check_manifest(tmp_path / "m.csv", limits, record=record)
    assert (report.rows, report.faults) == (rows, [])
    items = {
        item["id"]: item["sig"].numpy() for item in SpeechDataset(report, tokenizer, RATE, BOTH)
    }
    assert {name: len(sig) for name, sig in items.items()} == {
        "first": 14400,
        "second": 16000,
        "whole": 32000,
    }
    assert loudness(items["first"], 440) > 0.29
    assert loudness(items["second"], 1000) > 0.29
    # Without conversion it is a fault, though the record of the audio is of the same files.
    strict = check_manifest(tmp_path / "m.csv", Limits(RATE, tokenizer=tokenizer), record=record)
    assert strict.left_out == {"wrong sample rate": 3}
    soundfile.write(wav, sines(1.0, 48000, 440, 440), 48000)
    broken = next(
        iter(
            SpeechDataset(report, tokenizer, RATE, BOTH).filtered_sorted(
                key_min_value={"duration": 2}
            )
        )
    )
    assert isinstance(broken["sig"], BrokenAudio)


def test_parts_of_one_file_make_a_dev_set_another(tmp_path, monkeypatch):
    wav = tmp_path / "a.wav"
    soundfile.write(wav, sines(1.0, RATE, 440), RATE)
    write_csv(tmp_path / "t.csv", [Row("a", 1.0, str(wav), "s", "ONE TWO")])
    tokenizer = get_tokenizer(str(tmp_path), 7, str(tmp_path / "t.csv"), "char")
    read, found = [], []
    monkeypatch.setattr(
        "todm_sb.dataio.fingerprint.sha256_of", lambda path: read.append(path) or "content"
    )
    for start in (0.0, 0.1):
        rows = [Row(f"{i}", 0.5, str(wav), "s", "ONE", start, start + 0.5) for i in range(3)]
        write_csv(tmp_path / "m.csv", rows)
        found.append(dev_set_id(tmp_path / "m.csv", tokenizer))
    assert found[0] != found[1]
    assert len(read) == 2  # a file of many parts is read once
