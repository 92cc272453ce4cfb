"""Many files with any recogniser: one that says how long and how loud each part is."""

import math
import weakref

import numpy as np
import pytest

from todm_sb.inference import recogniser as module
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.recogniser import Cutting, transcribe_sources, transcribe_waves
from todm_sb.inference.results import Alternative, Word
from todm_sb.inference.segments import segments_of
from todm_sb.inference.sources import Source
from todm_sb.utils.errors import ConfigError, DataError

RATE = 1000


class Measuring:
    sample_rate, longest_seconds = RATE, 2.0

    def __init__(self, waves):
        self.waves = waves
        self.loaded = []
        self.batches = []

    def load(self, path):
        self.loaded.append(path)
        if path not in self.waves:
            raise DataError(f"{path} is no audio")
        return self.waves[path]

    def recognise(self, waves):
        self.batches.append([len(wave) for wave in waves])
        return [[self.measured(wave)] for wave in waves]

    @staticmethod
    def measured(wave):
        text = f"{len(wave)}:{np.abs(wave).sum():.3f}"
        return Alternative(text, (Word(text, 0.0, len(wave) / RATE, 1.0),), 0.0)


@pytest.fixture
def recogniser():
    rng = np.random.default_rng(0)
    lengths = {f"{i}.wav": rng.integers(1, 6 * RATE) for i in range(40)}
    waves = {name: rng.normal(size=n).astype(np.float32) for name, n in lengths.items()}
    return Measuring(waves)


@pytest.mark.parametrize("batch_seconds", [0.5, 7.0, 1000.0, math.inf])
def test_every_part_is_heard_once_in_batches_within_their_bound(recogniser, batch_seconds):
    waves = list(recogniser.waves.values())
    found = transcribe_waves(recogniser, waves, Cutting(batch_seconds=batch_seconds))
    for wave, transcript in zip(waves, found, strict=True):
        parts = segments_of(wave, RATE, 2.0)
        texts = [recogniser.measured(wave[begin:end]).text for begin, end in parts]
        assert transcript.text == " ".join(texts)
        # Times are from the beginning of the whole.
        times = [(word.start, word.end) for word in transcript.words]
        np.testing.assert_allclose(times, np.array(parts) / RATE)
    for batch in recogniser.batches:
        assert len(batch) == 1 or len(batch) * max(batch) <= batch_seconds * RATE
    if batch_seconds >= 1000.0:
        assert len(recogniser.batches) == 1


def test_a_network_of_single_words_hears_a_second_at_once(recogniser):
    waves = list(recogniser.waves.values())
    recogniser.longest_seconds = 0.8
    assert transcribe_waves(recogniser, waves) == transcribe_waves(recogniser, waves, Cutting(1.0))


@pytest.mark.parametrize(("seconds", "files"), [(9.0, 1000), (1000.0, 5)])
def test_files_come_in_their_order_and_few_are_held_in_memory(
    recogniser, monkeypatch, seconds, files
):
    monkeypatch.setattr(module, "WINDOW_SECONDS", seconds)
    monkeypatch.setattr(module, "WINDOW_FILES", files)
    names = list(recogniser.waves)
    names.insert(7, "bad.wav")
    longest = max(map(len, recogniser.waves.values())) / RATE
    sources = [Source.of_file(name) for name in names]
    for i, done in enumerate(transcribe_sources(recogniser, sources)):
        held = recogniser.loaded[i:]
        assert len(held) <= files
        assert sum(len(recogniser.waves.get(x, ())) for x in held) / RATE <= seconds + longest
        assert done.source.path == names[i]
        if names[i] == "bad.wav":
            assert (done.transcript, done.error) == (None, "bad.wav is no audio")
        else:
            (alone,) = transcribe_waves(recogniser, [recogniser.waves[names[i]]])
            assert done.transcript == alone
    assert i + 1 == len(names)


def test_no_file_is_held_while_the_next_window_is_loaded(recogniser, monkeypatch):
    monkeypatch.setattr(module, "WINDOW_FILES", 2)
    loaded = []

    def load(source):
        held = [samples for samples in loaded if samples() is not None]
        assert len(held) == len(loaded) % 2
        samples = np.ones(RATE, np.float32)
        loaded.append(weakref.ref(samples))
        return samples

    assert len(list(transcribe_sources(recogniser, [Source("x", "x")] * 6, load=load))) == 6


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.full(8000, np.nan, np.float32), "not finite"),
        (np.ones(8000, np.int16), "holds int16: give floating-point"),
        (np.ones((8000, 2), np.float32), r"of shape \(8000, 2\): give one channel"),
    ],
)
def test_what_no_microphone_gives_is_not_transcribed(recogniser, wave, message):
    with pytest.raises(DataError, match=message):
        transcribe_waves(recogniser, [np.ones(8000, np.float32), wave])


def test_files_of_no_samples_alone_are_transcribed_as_nothing(recogniser):
    nothing = np.zeros(0, np.float32)
    (done,) = transcribe_sources(recogniser, [Source("x", "x")], load=lambda source: nothing)
    assert done.transcript is not None
    assert done.transcript.seconds == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hotwords": "ANNA"}, "is one text"),
        ({"hotwords": {"ANNA": math.nan}}, "must be finite"),
        ({"hotwords": {"ANNA": -1e308}}, "must be finite, and 10000 at most"),
        ({"lm_weight": 1e5}, "must be finite, and 10000 at most"),
        ({"lm_weight": math.inf}, "must be finite"),
    ],
)
def test_a_search_of_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Decoding(**options)
