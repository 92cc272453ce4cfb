"""What a trained network gives: times of words, hot words, long audio.

The network is that of mini.yaml. It is trained here unless ``TODM_MINI_RUN`` names a finished run.
"""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from speechbrain.utils.edit_distance import accumulatable_wer_stats, wer_details_for_batch
from tiny import LIBRISPEECH, call, load_script

from todm_sb.dataio.espeak import SAMPLE_RATE, synthesize_with_times
from todm_sb.dataio.librispeech import reference_of
from todm_sb.dataio.mini_corpus import plan_corpus
from todm_sb.inference import SubnetASR
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.recogniser import Cutting, transcribe_waves

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the mini recipe, its corpus two folders up."""
    if "TODM_MINI_RUN" in os.environ:
        return Path(os.environ["TODM_MINI_RUN"])
    results = tmp_path_factory.mktemp("results")
    output, data = results / "mini" / "1234", results / "mini_corpus"
    train = load_script(LIBRISPEECH / "train.py").main
    recipe = str(LIBRISPEECH / "hparams" / "mini.yaml")
    train([recipe, f"--output_folder={output}", f"--data_folder={data}", "--noprogressbar"])
    return output


@pytest.fixture(scope="module")
def asr(run, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle") / "all"
    call("export", run, target)
    return SubnetASR.from_bundle(target, "min")


@pytest.fixture(scope="module")
def spoken(run, asr):
    """Samples and words of 100 test utterances."""
    files = sorted((run.parents[1] / "mini_corpus" / "test-clean").glob("*/*/*.flac"))
    random.Random(0).shuffle(files)
    recogniser = asr.recogniser()
    return [(recogniser.load(str(f)), reference_of(f).split()) for f in files[:100]]


def said_by_espeak(utterance):
    """Samples at espeak-ng's rate, as the corpus has them, and when each word begins."""
    samples, words = synthesize_with_times(utterance.sentence, utterance.voice)
    loud = np.flatnonzero(np.abs(samples) > 0.006 * np.abs(samples).max())
    margin = round(0.1 * SAMPLE_RATE)
    audio = np.pad(samples[loud[0] : loud[-1] + 1], margin)
    audio = 0.05 * audio / audio.std()
    audio += 0.002 * np.random.default_rng(0).standard_normal(len(audio))
    shift = (margin - loud[0]) / SAMPLE_RATE
    return audio, [(word.upper(), begin + shift) for word, begin in words]


def test_words_begin_where_the_synthesiser_began_them(asr):
    recogniser, distances = asr.recogniser(), []
    for utterance in plan_corpus(1, {"train": 0, "dev-clean": 0, "test-clean": 60}):
        audio, said = said_by_espeak(utterance)
        wave = asr.audio_normalizer(torch.from_numpy(audio).float(), SAMPLE_RATE).numpy()
        (found,) = transcribe_waves(recogniser, [wave])
        starts = {word.text: word.start for word in found.words}
        words = [word for word, _ in said]
        # espeak-ng says "in the" as one word.
        once = [x for x in said if words.count(x[0]) == 1 and x[0] in starts]
        distances += [abs(starts[word] - begin) for word, begin in once]
    assert len(distances) > 200
    assert np.median(distances) < 0.1


def test_joined_commands_have_the_words_that_each_has_alone(asr, spoken):
    waves = 3 * [samples for samples, _ in spoken]
    assert sum(map(len, waves)) / asr.hparams.sample_rate > 10 * 60
    alone = transcribe_waves(asr.recogniser(), waves)
    (together,) = transcribe_waves(asr.recogniser(), [np.concatenate(waves)])
    n_alone = sum(len(x.words) for x in alone)
    assert abs(len(together.words) - n_alone) < 0.05 * n_alone
    assert max(x.end - x.start for x in together.segments) <= asr.hparams.longest_seconds
    texts = [word for x in alone for word in x.text.split()]
    assert accumulatable_wer_stats([texts], [together.text.split()])["WER"] < 5
    (uncut,) = transcribe_waves(asr.recogniser(), [np.concatenate(waves)], Cutting(np.inf))
    assert len(uncut.words) < 0.5 * n_alone  # why audio is cut


def errors_of(asr, decoding, waves, references, listed):
    """Errors in listed words, and in others."""
    found = transcribe_waves(asr.recogniser(decoding), waves)
    texts = [x.text.split() for x in found]
    keys = list(range(len(texts)))
    counts = {True: 0, False: 0}
    for details in wer_details_for_batch(keys, references, texts, compute_alignments=True):
        words, text = references[details["key"]], texts[details["key"]]
        for kind, i, j in details["alignment"]:
            if kind != "=":
                counts[(text[j] if i is None else words[i]) in listed] += 1
    return np.array([counts[True], counts[False]])


def test_hot_words_lower_the_error_of_what_is_listed_and_raise_no_other(asr, spoken):
    noise = np.random.default_rng(0)
    noisy = [
        (x + 0.3 * x.std() * noise.standard_normal(len(x)).astype("float32"), words)
        for x, words in spoken
    ]
    # Each word is in one list, and each list is tried on the commands of who would have it: those
    # that hold something of it.
    vocabulary = sorted({w for _, words in spoken for w in words if len(w) > 3})
    random.Random(0).shuffle(vocabulary)
    plain, hot = np.zeros(2, int), np.zeros(2, int)
    for listed in (vocabulary[i::12] for i in range(12)):
        waves, references = zip(*(x for x in noisy if set(x[1]) & set(listed)), strict=True)
        plain += errors_of(asr, Decoding(4), waves, references, listed)
        hot += errors_of(asr, Decoding(4, hotwords=tuple(listed)), waves, references, listed)
    assert hot[0] < 0.9 * plain[0]
    assert hot[1] <= plain[1]
