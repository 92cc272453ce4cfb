"""MP3 files that are longer than libsndfile says are refused, and all others are read."""

import io

import numpy as np
import pytest
import soundfile

from todm_sb.cli import main
from todm_sb.dataio.audio import audio_fault, read_samples
from todm_sb.dataio.mp3 import is_longer
from todm_sb.inference.audio_file import open_audio, sample_blocks
from todm_sb.utils.errors import DataError

RATES = (8000, 11025, 16000, 24000, 32000, 44100, 48000)
LACK = "it does not tell its length: convert it to WAV or FLAC"
# With bytes in which frames seem to begin, as a picture has.
TAG = b"ID3\3\0\0\0\0\7\x68" + b"\xff\xfb\x90\0" * 250


def encoded(seconds, rate=16000, mode="VARIABLE", channels=1, loud=None):
    """An MP3 of noise, which is quiet after its loud part, so that frames differ in size."""
    noise = 0.2 * np.random.default_rng(0).normal(size=(round(seconds * rate), channels))
    if loud is not None:
        noise[round(loud * rate) :] *= 0.01
    file, kind = io.BytesIO(), {"format": "MP3", "subtype": "MPEG_LAYER_III"}
    soundfile.write(file, noise, rate, bitrate_mode=mode, compression_level=0.3, **kind)
    return file.getvalue()


def without_length(content):
    """Without the first frame, which tells how many others there are."""
    first = content.index(content[:2], 40)
    assert b"Xing" in content[:first] or b"Info" in content[:first]
    return content[first:]


def n_decoded(content):
    return len(soundfile.read(io.BytesIO(content))[0])


LONGER = {
    "a loud beginning": without_length(encoded(30, loud=3)),
    "joined": encoded(3) + encoded(2),
    "joined, of other rates": encoded(1, 44100) + encoded(2),
    "joined, with tags": TAG + encoded(3) + b"TAG".ljust(128, b" ") + TAG + encoded(2),
}


@pytest.mark.parametrize("name", LONGER)
def test_what_is_longer_than_is_told_is_refused_wherever_it_is_read(name, tmp_path, capsys):
    content, path = LONGER[name], str(tmp_path / "a.mp3")
    (tmp_path / "a.mp3").write_bytes(content)
    told = soundfile.info(path).duration
    for whole in (True, False):
        assert audio_fault(path, told, whole=whole) == ("unreadable audio", f"{path}: {LACK}")
    with pytest.raises(DataError, match=LACK):
        read_samples(path, 0.5, part=(0.0, 0.5))
    with pytest.raises(DataError, match=rf"^{path} cannot be read as audio: {LACK}$"):
        open_audio(path)
    soundfile.write(tmp_path / "b.wav", np.full(16000, 0.1), 16000)
    for stem in "ab":
        (tmp_path / f"{stem}.txt").write_text("ONE")
    assert main(["manifest", str(tmp_path), str(tmp_path / "found.csv")]) == 1
    assert f"{path}: unreadable audio ({LACK})" in capsys.readouterr().err


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_what_tells_its_length_is_read(rate, mode, tmp_path):
    for seconds in (0.01, 1.34):
        for channels in (1, 2):
            content = encoded(seconds, rate, mode, channels)
            for i, file in enumerate((content, TAG + content, content + b"TAG".ljust(128, b"x"))):
                path = tmp_path / f"{seconds}_{channels}_{i}.mp3"
                path.write_bytes(file)
                read = np.concatenate([*sample_blocks(open_audio(path), 999, path)])
                assert len(read) == pytest.approx(seconds * rate, abs=1200)
                assert not is_longer(io.BytesIO(file), n_decoded(file))


@pytest.mark.parametrize("rate", RATES)
def test_frames_of_one_size_tell_the_length_without_saying_it(rate, tmp_path):
    content = encoded(3.0, rate, "CONSTANT")
    if b"Info" in content[:500]:
        content = without_length(content)
    (tmp_path / "a.mp3").write_bytes(content)
    assert open_audio(tmp_path / "a.mp3").frames == pytest.approx(3.0 * rate, abs=3 * 1152)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_samples_are_counted_as_a_decoder_counts_them(rate, mode):
    """Those of one frame more are more, beyond what encoders put before and after the audio, and
    what a tag can tell of that."""
    content = encoded(3.0, rate, mode)
    n, frame = n_decoded(content), 1152 if rate >= 32000 else 576
    assert not is_longer(io.BytesIO(content), n)
    assert is_longer(io.BytesIO(content), n - 5 * frame - 2 * 4095)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_what_a_tag_tells_to_be_left_off_is_not_missed(rate, tmp_path):
    content, n = bytearray(encoded(3.0, rate)), round(3.0 * rate)
    at = content.index(b"LAME") + 21
    content[at : at + 3] = (3000 << 12 | 3500).to_bytes(3, "big")
    (tmp_path / "a.mp3").write_bytes(content)
    assert open_audio(tmp_path / "a.mp3").frames < n - 3000


def test_what_is_no_mp3_has_no_samples():
    for content in (
        b"",
        b"\xff",
        b"\xff" * 5000,
        b"ID3",
        TAG,
        np.random.default_rng(0).bytes(10**5),
    ):
        assert not is_longer(io.BytesIO(content), 0)
