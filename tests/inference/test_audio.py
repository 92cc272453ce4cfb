"""Audio is opened once, wherever it is, and what cannot be is one line that says why."""

import io
import itertools
import os
import threading

import numpy as np
import pytest
import soundfile

from todm_sb.inference import audio_file
from todm_sb.inference.audio_file import open_audio, sample_blocks
from todm_sb.utils.errors import DataError


@pytest.fixture
def samples():
    return 0.1 * np.random.default_rng(0).normal(size=5000).astype(np.float32)


def encoded(samples, kind, subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format=kind, subtype=subtype)
    return file.getvalue()


def read(path):
    return np.concatenate(list(sample_blocks(open_audio(path), 999, path)))


def feed(path, content):
    """Writes into a pipe, as another process does."""

    def write():
        try:
            with open(path, "wb") as pipe:
                pipe.write(content)
        except BrokenPipeError:
            pass  # nobody wants the rest

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_named_pipe_is_read_as_the_file_is(samples, kind, tmp_path):
    content = encoded(samples, kind)
    (tmp_path / "file").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    writer = feed(tmp_path / "pipe", content)
    np.testing.assert_array_equal(read(tmp_path / "pipe"), read(tmp_path / "file"))
    writer.join()


def test_a_pipe_that_a_shell_hands_over_is_read(samples):
    ends = os.pipe()
    writer = feed(ends[1], encoded(samples, "WAV"))
    np.testing.assert_allclose(read(f"/dev/fd/{ends[0]}"), samples, atol=1e-4)
    writer.join()
    os.close(ends[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no audio"), (b"no audio at all", "cannot be read as audio")],
)
def test_what_a_pipe_gives_may_be_no_audio(content, message, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    feed(tmp_path / "pipe", content)
    with pytest.raises(DataError, match=f"{tmp_path}/pipe {message}"):
        open_audio(tmp_path / "pipe")


def test_what_has_no_end_is_refused(monkeypatch):
    monkeypatch.setattr(audio_file, "MOST_BYTES", 1 << 16)
    with pytest.raises(DataError, match=r"/dev/zero gives more than 65,536 bytes"):
        open_audio("/dev/zero")


def test_a_device_that_gives_nothing_holds_no_audio():
    with pytest.raises(DataError, match="/dev/null holds no audio"):
        open_audio("/dev/null")


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path} is a folder: name the audio files in it"):
        open_audio(tmp_path)


def test_a_file_that_may_not_be_read_is_called_so(samples, tmp_path, monkeypatch):
    (tmp_path / "secret.wav").write_bytes(encoded(samples, "WAV"))

    def refuse(*_):  # as the system does; not to its administrator, who may run the tests
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(audio_file, "open", refuse, raising=False)
    with pytest.raises(DataError, match=r"secret.wav cannot be read: Permission denied"):
        open_audio(tmp_path / "secret.wav")


def test_standard_input_may_be_closed(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input is closed"):
        open_audio("-")


def test_what_tells_no_rate_or_no_length_is_to_be_converted(samples, tmp_path):
    content = bytearray(encoded(samples, "FLAC"))
    content[21:26] = content[21] & 0xF0, 0, 0, 0, 0  # as of an encoder that writes into a pipe
    (tmp_path / "a.flac").write_bytes(content)
    (tmp_path / "a.raw").write_bytes(bytes(3200))
    for name, lack in {"a.flac": "does not tell its length", "a.raw": "has no header"}.items():
        with pytest.raises(DataError, match=f"{name} .*{lack}: convert it to WAV"):
            open_audio(tmp_path / name)


@pytest.mark.parametrize("name", ["missing.wav", "a\0b.wav", "\ud800.wav"])
def test_what_is_not_there_is_called_so(name, tmp_path):
    with pytest.raises(DataError, match=r"audio file .* does not exist"):
        open_audio(f"{tmp_path}/{name}")


def test_below_a_file_there_is_nothing(samples, tmp_path):
    (tmp_path / "file").write_bytes(encoded(samples, "WAV"))
    with pytest.raises(DataError, match=r"file/more\.wav does not exist"):
        open_audio(tmp_path / "file" / "more.wav")


def tag(n):
    """Of an MP3, with a picture of so many bytes."""
    return b"ID3\3\0\0" + bytes([n >> 7 * i & 127 for i in (3, 2, 1, 0)]) + bytes(n)


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("before", [b"", tag(100_000)])
def test_an_mp3_that_breaks_off_is_told(before, piped, tmp_path):
    content = encoded(0.1 * np.random.default_rng(1).normal(size=64000), "MP3")
    path = tmp_path / "a.mp3"

    def put(content):
        path.unlink(missing_ok=True)
        if piped:
            os.mkfifo(path)
            feed(path, content)
        else:
            path.write_bytes(content)

    put(before + content)
    assert len(read(path)) == 64000
    put(before + content[: len(content) // 3])
    with pytest.raises(
        DataError, match=r"a\.mp3 breaks off: [12]\d,\d+ of 64,000 samples are there"
    ):
        read(path)


def test_an_mp3_that_does_not_tell_its_length_is_read_to_its_end(tmp_path):
    content = encoded(0.1 * np.random.default_rng(1).normal(size=64000), "MP3")
    first = content.index(content[:2], 40)
    assert b"Xing" in content[:first]
    (tmp_path / "a.mp3").write_bytes(tag(100_000) + content[first:])
    with open_audio(tmp_path / "a.mp3") as audio:
        assert audio.frames > 2 * 64000  # it is guessed, and the picture taken for audio
    assert len(read(tmp_path / "a.mp3")) == pytest.approx(64000, abs=3 * 1152)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [*itertools.product(["WAV", "FLAC", "OGG", "MP3"], [1, 2]), ("WAV GSM610", 1)],
)
def test_blocks_are_the_samples_that_are_read_at_once(kind, channels, tmp_path):
    """Decoding MP3 anew in the middle of a file needs what comes before."""
    wave = 0.1 * np.random.default_rng(1).normal(size=(60000, channels))
    (tmp_path / "file").write_bytes(encoded(wave, *kind.split()))
    whole = soundfile.read(tmp_path / "file", dtype="float32", always_2d=True)[0].mean(1)
    for size in (7001, 1 << 18):
        blocks = list(sample_blocks(open_audio(tmp_path / "file"), size, "file"))
        assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
        np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
