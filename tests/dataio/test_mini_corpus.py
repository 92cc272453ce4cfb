import hashlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from todm_sb.dataio.espeak import SAMPLE_RATE, Voice, synthesize
from todm_sb.dataio.librispeech import prepare_librispeech
from todm_sb.dataio.manifest import read_csv
from todm_sb.dataio.mini_corpus import (
    OPTIONS_NAME,
    SIZES_NAME,
    VOICES,
    plan_corpus,
    prepare_mini_corpus,
)
from todm_sb.dataio.mini_grammar import MAX_WORDS, MIN_WORDS, vocabulary
from todm_sb.utils.errors import DataError

SIZES = {"n_train": 8, "n_dev": 4, "n_test": 6}
FULL = {"train": 2000, "dev-clean": 100, "test-clean": 200}

speaks = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="espeakng_loader is not installed (the extra demo)",
)


def digests(folder):
    """SHA-256 of every file of a corpus, by its path inside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    prepare_mini_corpus(str(folder), seed=7, **SIZES)
    return folder


# What is said, and by whom.


def test_no_sentence_is_said_twice_so_dev_and_test_are_unseen():
    plan = plan_corpus(1234, FULL)
    assert len({utterance.sentence for utterance in plan}) == len(plan) == 2300
    assert len({utterance.id for utterance in plan}) == len(plan)


def test_no_voice_of_dev_or_test_is_heard_in_training():
    variants = {split: {voice.variant for voice in voices} for split, voices in VOICES.items()}
    assert {split: len(v) for split, v in variants.items()} == {
        "train": 24,
        "dev-clean": 4,
        "test-clean": 6,
    }
    assert len(set.union(*variants.values())) == 24 + 4 + 6


def test_dev_and_test_voices_lie_within_the_span_of_training_voices():
    train = VOICES["train"]
    for voice in VOICES["dev-clean"] + VOICES["test-clean"]:
        assert voice.accent in {v.accent for v in train}
        assert min(v.pitch for v in train) < voice.pitch < max(v.pitch for v in train)
        assert min(v.rate for v in train) < voice.rate < max(v.rate for v in train)


def test_sentences_are_of_the_promised_length_and_training_has_every_word_often():
    plan = plan_corpus(1234, FULL)
    assert {MIN_WORDS, MAX_WORDS} == {4, 9}
    assert {len(u.sentence.split()) for u in plan} == set(range(MIN_WORDS, MAX_WORDS + 1))

    words = [word for u in plan if u.split == "train" for word in u.sentence.split()]
    assert 80 <= len(vocabulary()) <= 120
    assert set(words) == set(vocabulary())
    assert min(words.count(word) for word in vocabulary()) >= 15
    assert all(word.isascii() and word.isalpha() and word.islower() for word in vocabulary())


def test_the_size_of_training_does_not_change_what_is_tested_on():
    def tested(size):
        plan = plan_corpus(1, FULL | {"train": size})
        return [utterance for utterance in plan if utterance.split != "train"]

    assert tested(10) == tested(500)


def test_another_seed_says_other_sentences():
    ours, theirs = ({u.sentence for u in plan_corpus(seed, FULL)} for seed in (1, 2))
    assert len(ours & theirs) < 0.5 * len(ours)


def test_more_sentences_than_the_grammar_has_is_an_error(monkeypatch):
    grammar = {"SENTENCE": ("turn POWER the light",), "POWER": ("on", "off")}
    monkeypatch.setattr("todm_sb.dataio.mini_grammar.GRAMMAR", grammar)
    sizes = {"train": 1, "dev-clean": 0, "test-clean": 1}
    assert len(plan_corpus(1, sizes)) == 2
    with pytest.raises(DataError, match="no more than 2 sentences: ask for fewer utterances"):
        plan_corpus(1, sizes | {"train": 2})


# The voice.


@speaks
def test_what_was_said_before_does_not_change_what_is_said():
    voice, other = Voice("en-us", "f2"), Voice("en-gb-scotland", "m7", pitch=60, rate=150)
    first = synthesize("open the door", voice)
    synthesize("thank you and good night", other)
    assert np.array_equal(synthesize("open the door", voice), first)
    assert not np.array_equal(synthesize("close the door", voice), first)


@speaks
def test_pitch_and_rate_are_obeyed():
    text = "turn the kitchen light on"
    slow, fast = (len(synthesize(text, Voice("en", "m3", rate=rate))) for rate in (140, 200))
    assert slow > 1.2 * fast
    assert 0.7 < fast / SAMPLE_RATE < 2.5

    def period_s(pitch):
        audio = synthesize("aaaaaaa", Voice("en", "m3", pitch=pitch, pitch_range=0))
        part = audio[len(audio) // 3 : 2 * len(audio) // 3]
        power = np.abs(np.fft.rfft(part, 2**17)) ** 2
        correlation = np.fft.irfft(power)
        lags = slice(round(SAMPLE_RATE / 400), round(SAMPLE_RATE / 60))
        return (lags.start + correlation[lags].argmax()) / SAMPLE_RATE

    assert period_s(20) > 1.1 * period_s(80)


@speaks
def test_every_voice_of_the_corpus_is_known_and_speaks():
    spoken = {v: synthesize("stop the music", v) for voices in VOICES.values() for v in voices}
    assert all(0.5 < len(audio) / SAMPLE_RATE < 2 for audio in spoken.values())
    assert all(audio.std() > 0.01 for audio in spoken.values())
    assert len({audio.tobytes() for audio in spoken.values()}) == len(spoken)


@speaks
@pytest.mark.parametrize("voice", [Voice("en-nowhere", "m1"), Voice("en-us", "nobody")])
def test_an_unknown_voice_is_named(voice):
    with pytest.raises(DataError, match=f"no voice '{voice.accent}.{voice.variant}'"):
        synthesize("stop", voice)


def test_without_espeak_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match=r"pip install 'espeakng-loader>=0.2'"):
        prepare_mini_corpus(tmp_path, **SIZES)


# The corpus on disk.


@speaks
def test_the_same_seed_gives_the_same_bytes_in_another_process(corpus, tmp_path):
    code = (
        "import sys; from todm_sb.dataio.mini_corpus import prepare_mini_corpus; "
        f"prepare_mini_corpus(sys.argv[1], seed=7, num_threads=1, **{SIZES})"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)

    assert digests(tmp_path) == digests(corpus)
    assert sum(name.endswith(".flac") for name in digests(corpus)) == 18


@speaks
def test_another_seed_gives_other_audio(corpus, tmp_path):
    prepare_mini_corpus(tmp_path, seed=8, n_train=2, n_dev=1, n_test=1)
    flacs = {digest for name, digest in digests(tmp_path).items() if name.endswith(".flac")}
    assert len(flacs) == 4
    assert not flacs & set(digests(corpus).values())


@speaks
def test_the_librispeech_reader_finds_every_utterance(corpus, tmp_path):
    prepare_librispeech(corpus, tmp_path, ["train"], ["dev-clean"], ["test-clean"], strict=True)
    plan = plan_corpus(7, {"train": 8, "dev-clean": 4, "test-clean": 6})
    for split in VOICES:
        rows = {row.ID: row.wrds for row in read_csv(tmp_path / f"{split}.csv")}
        assert rows == {u.id: u.sentence.upper() for u in plan if u.split == split}


@speaks
def test_the_audio_is_speech_at_16_khz_and_16_bits(corpus):
    paths = sorted(corpus.rglob("*.flac"))
    levels = set()
    for path in paths:
        header = soundfile.info(path)
        assert (header.samplerate, header.channels, header.subtype) == (16000, 1, "PCM_16")
        assert 1.0 < header.duration < 3.6
        audio, _ = soundfile.read(path)
        level = 20 * np.log10(audio.std())
        assert -31 < level < -19
        assert 0.05 < np.abs(audio).max() < 0.96
        # The pause before the words is noise: heard, but well below the speech.
        pause = 20 * np.log10(audio[:1000].std())
        assert -37 < pause - level < -15
        levels.add(round(level, 3))
    assert len(levels) == len(paths) == 18


def test_skip_prep_does_nothing(tmp_path):
    prepare_mini_corpus(tmp_path / "mini", skip_prep=True)
    assert not (tmp_path / "mini").exists()


@speaks
def test_what_is_there_is_kept_and_what_is_missing_is_made_good(corpus):
    before = digests(corpus)
    paths = sorted(corpus.rglob("*.flac"))
    kept = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    next(corpus.rglob("*.trans.txt")).unlink()

    prepare_mini_corpus(corpus, seed=7, **SIZES)
    assert digests(corpus) == before
    assert paths[0].stat().st_mtime_ns == kept


@speaks
@pytest.mark.parametrize(
    "change",
    [
        lambda path, _: path.write_bytes(b""),
        lambda path, _: path.write_bytes(path.read_bytes()[:-500]),
        lambda path, _: soundfile.write(path, soundfile.read(path)[0][:8000], 16000),
        lambda path, other: path.write_bytes(other.read_bytes()),
    ],
    ids=["emptied", "cut short", "trimmed", "exchanged"],
)
def test_audio_that_changes_after_preparation_is_made_again(corpus, tmp_path, change):
    before = digests(corpus)
    paths = sorted(corpus.rglob("*.flac"))
    prepare_librispeech(corpus, tmp_path, ["train"])
    csv = (tmp_path / "train.csv").read_bytes()
    change(paths[-1], paths[-2])
    assert digests(corpus) != before

    prepare_mini_corpus(corpus, seed=7, **SIZES)
    assert digests(corpus) == before
    prepare_librispeech(corpus, tmp_path, ["train"], strict=True)
    assert (tmp_path / "train.csv").read_bytes() == csv


@speaks
def test_an_emptied_file_of_a_corpus_without_a_record_is_made_again(corpus):
    before = digests(corpus)
    (corpus / SIZES_NAME).unlink()
    next(corpus.rglob("*.flac")).write_bytes(b"")
    prepare_mini_corpus(corpus, seed=7, **SIZES)
    assert digests(corpus) == before


@speaks
def test_an_interrupted_run_is_taken_up_again(corpus, tmp_path, monkeypatch):
    spoken = []

    def interrupted(text, voice):
        if len(spoken) == 5:
            raise KeyboardInterrupt
        spoken.append(text)
        return synthesize(text, voice)

    module = "todm_sb.dataio.mini_corpus.synthesize"
    with monkeypatch.context() as patch:
        patch.setattr(module, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_mini_corpus(tmp_path, seed=7, num_threads=1, **SIZES)
    assert len(list(tmp_path.rglob("*.flac"))) == 5

    prepare_mini_corpus(tmp_path, seed=7, **SIZES)
    assert digests(tmp_path) == digests(corpus)


@speaks
def test_other_options_replace_the_corpus(tmp_path):
    prepare_mini_corpus(tmp_path, seed=1, n_train=2, n_dev=1, n_test=1)
    first = digests(tmp_path)
    prepare_mini_corpus(tmp_path, seed=1, n_train=1, n_dev=1, n_test=1)
    assert sum(name.endswith(".flac") for name in digests(tmp_path)) == 3
    prepare_mini_corpus(tmp_path, seed=1, n_train=2, n_dev=1, n_test=1, sample_rate=8000)
    assert digests(tmp_path).keys() == first.keys()
    assert soundfile.info(next(tmp_path.rglob("*.flac"))).samplerate == 8000


@speaks
@pytest.mark.parametrize("record", ["whole", "none", "options unreadable"])
def test_other_options_replace_nothing_but_the_corpus(tmp_path, record):
    prepare_mini_corpus(tmp_path, seed=1, n_train=2, n_dev=1, n_test=1)
    made = min(name for name in digests(tmp_path) if name.endswith(".flac"))
    theirs = ("train/notes.md", "train/9/8/9-8-0.flac", f"{made}.bak", "dev-clean/x/y")
    for name in theirs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    if record == "none":  # as of a run that was broken off
        (tmp_path / SIZES_NAME).unlink()
    elif record != "whole":
        (tmp_path / OPTIONS_NAME).write_text("{")
    prepare_mini_corpus(tmp_path, seed=2, n_train=1, n_dev=1, n_test=1)
    assert all((tmp_path / name).read_text() == "theirs" for name in theirs)
    sizes = {"train": 1, "dev-clean": 1, "test-clean": 1}
    wanted = {u.path.as_posix() for u in plan_corpus(2, sizes)}
    audio = {name for name in digests(tmp_path) if name.endswith(".flac")}
    assert audio - {*theirs} == wanted


@pytest.mark.parametrize("name", ["dev-clean/84/121123/84-121123-0000.flac", "a.wav", "x/a.wav"])
def test_a_folder_with_somebody_elses_corpus_is_refused_and_left_alone(tmp_path, name):
    precious = tmp_path / name
    precious.parent.mkdir(parents=True, exist_ok=True)
    precious.write_bytes(b"real speech")
    with pytest.raises(DataError, match="not the mini corpus"):
        prepare_mini_corpus(tmp_path, **SIZES)
    assert digests(tmp_path).keys() == {str(precious.relative_to(tmp_path))}
