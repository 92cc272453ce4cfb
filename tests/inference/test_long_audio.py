"""Hours of audio: memory grows with their length at most, and streams need the same at any."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from measure import MB, peak_memory

from todm_sb.bundle.bundle import write_bundle
from todm_sb.inference import StreamingSubnetASR, SubnetASR

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

RATE = 16000
MINUTES = 5, 10


def read(bundle, path):
    """Work that reads a file as a whole."""
    asr = SubnetASR.from_bundle(bundle)
    return lambda: asr.transcribe_file(path)


def stream(bundle, path):
    """Work that reads a file chunk by chunk."""
    asr = StreamingSubnetASR.from_bundle(bundle)
    return lambda: "".join(asr.transcribe_file_streaming(path))


@pytest.fixture
def paths(tmp_path):
    """Files of noise, of :data:`MINUTES` minutes."""
    rng, made = np.random.default_rng(0), []
    for minutes in MINUTES:
        made.append(str(tmp_path / f"{minutes}.wav"))
        soundfile.write(made[-1], 0.1 * rng.normal(size=minutes * 60 * RATE), RATE)
    return made


def peaks(work, bundle, paths):
    """Megabytes."""
    return [peak_memory(functools.partial(work, str(bundle), path)) / MB for path in paths]


def test_a_file_twice_as_long_needs_no_more_than_twice_the_memory(bundle, paths):
    short, long = peaks(read, bundle, paths)
    # The samples alone; a square matrix over the frames would add 225 MB and 900 MB.
    assert short > 5 * 60 * RATE * 4 / MB
    assert long < 2.2 * short


def test_a_stream_needs_the_same_memory_however_long_it_is(
    bundle_parts, make_transducer, paths, tmp_path
):
    parts = {**bundle_parts, "space": None}
    options = {**parts["model"].config["encoder"], "causal": True}
    parts["model"] = make_transducer(vocab_size=17, **options)
    parts["fbank"] |= {"fbank_kind": "kaldi", "snip_edges": True}
    write_bundle(tmp_path / "causal", **parts)
    short, long = peaks(stream, tmp_path / "causal", paths)
    assert long < short + 5
