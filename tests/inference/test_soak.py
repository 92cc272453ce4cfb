"""Recognisers loaded and used again and again, and by many threads at once."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from soak import Gauge

from todm_sb.inference import SubnetASR
from todm_sb.inference.decoding import Decoding

RATE = 16000


def batch(seed):
    """Noise of one to three utterances of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    n = seed % 3 + 1
    wavs = 0.1 * torch.randn(n, RATE // 2 + 1000 * seed, generator=generator)
    return wavs, torch.linspace(1.0, 0.6, n)


def test_eight_threads_read_what_one_reads(bundle):
    asr = SubnetASR.from_bundle(bundle)
    batches = [batch(seed) for seed in range(8)]
    alone = [asr.transcribe_batch(*x) for x in batches]
    assert len({str(words) for words, _ in alone}) > 4
    assert all(len(text) > 2 for words, _ in alone for text in words)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda x: asr.transcribe_batch(*x), 4 * batches))
    assert together == 4 * alone


@pytest.fixture
def _threads_change_often():
    seconds = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(seconds)


@pytest.mark.usefixtures("_threads_change_often")
@pytest.mark.parametrize("units", ["ZERO NINE SIX", "\u2581 E N I O S Z"], ids=["words", "pieces"])
def test_eight_threads_share_a_recogniser_with_a_language_model(bundle, tmp_path, units):
    path = tmp_path / "lm.arpa"
    first, *others = units.split()
    unigrams = "".join(f"-{i + 1} {unit} -0.3\n" for i, unit in enumerate([first, *others]))
    bigrams = f"\\2-grams:\n-0.2 {others[0]} {first}\n-0.1 <s> {first}\n"
    text = f"\\1-grams:\n-2 </s>\n-1 <s> -0.3\n{unigrams}{bigrams}\\end\\\n"
    path.write_text(text, encoding="utf-8")
    asr = SubnetASR.from_bundle(bundle)
    recogniser = asr.recogniser(Decoding(lm=path, lm_weight=0.1, hotwords={"NINE": 1.0}, nbest=2))
    waves = [batch(seed)[0][0].numpy() for seed in range(8)]
    alone = [recogniser.recognise([wave]) for wave in waves]
    assert len({found[0].score for (found,) in alone}) == 8
    assert any(found[0].text for (found,) in alone)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda wave: recogniser.recognise([wave]), 4 * waves))
    assert together == 4 * alone


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_times_loaded_and_used_memory_and_file_handles_stay_flat(bundle, tmp_path):
    noise = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    soundfile.write(tmp_path / "noise.flac", noise, RATE)
    gauge, texts = Gauge(), set()
    for cycle in range(1000):
        asr = SubnetASR.from_bundle(bundle, subnet=("max", "min")[cycle % 2])
        texts.add(asr.transcribe_file(tmp_path / "noise.flac"))
        if cycle % 20 == 19:
            gauge.read()
    assert len(texts) == 2
    gauge.assert_flat(settled=10, mb=8)
