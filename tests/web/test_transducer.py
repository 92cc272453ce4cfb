"""A subnet of the page in Node, on models that pretend: each sample but 0 is a label they hear."""

import json
import shutil
import subprocess
import sys
import unicodedata
from types import SimpleNamespace

import numpy as np
import pytest

from todm_sb.dataio.script import is_wide, join_words
from todm_sb.inference.recogniser import Cutting
from todm_sb.inference.segments import segments_of
from todm_sb.web.server import PAGE

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

RUNTIME = """
export const env = { wasm: {} };
export const loaded = [], heard = [];
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
const parts = {
  features: ({ samples }) => ({ samples }),
  encoder: ({ samples }) => {
    heard.push(samples.data.length);
    const data = samples.data.filter((value) => value !== 0);
    const encoder_out = new Tensor("float32", data, [1, data.length, 1]);
    return { encoder_out, encoder_out_lens: { data: [BigInt(data.length)] } };
  },
  decoder: () => ({ decoder_out: null }),
  joiner: ({ encoder_out }) => {
    const data = [0, 0, 0];
    data[encoder_out.data[0]] = 1;
    return { logit: { data } };
  },
};
export const InferenceSession = {
  async create(url) {
    loaded.push(url);
    const run = async (feeds) => parts[/(\\w+)\\.onnx$/.exec(url)[1]](feeds);
    return { run, inputMetadata: [{ name: "y", shape: ["N", 1] }] };
  },
};
"""
SUBNET = """
import { heard, loaded } from "./runtime/ort.wasm.min.mjs";
import { Transducer } from "./transducer.js";
globalThis.fetch = async (url) => {
  loaded.push(url);
  return { text: async () => "<blk> 0\\nA 1\\nB 2\\n" };
};
"""
SAMPLES = """
import { readFileSync } from "fs";
const samples = new Float32Array(new Uint8Array(readFileSync("samples")).buffer);
"""


@pytest.fixture
def node(tmp_path):
    """Runs a script beside the page's; returns what it logs, of JSON."""
    for path in PAGE.glob("*.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "ort.wasm.min.mjs").write_text(RUNTIME)

    def run(script, **values):
        constants = "".join(f"const {key} = {json.dumps(x)};\n" for key, x in values.items())
        (tmp_path / "test.js").write_text(constants + script)
        done = subprocess.run(
            [NODE, "test.js"], cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_models_are_beside_the_page_wherever_that_is(node, tmp_path):
    loaded = node(
        SUBNET
        + "await Transducer.load({ location: 'models/a%20b/', max_symbols: 1 }, 1);\n"
        + "console.log(JSON.stringify(loaded));",
    )
    assert len(loaded) == 5
    assert all(url.startswith(f"{tmp_path.as_uri()}/models/a%20b/") for url in loaded)


def noise(seed, rate, seconds):
    """Noise in bursts of any level, silence between some of them."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < seconds * rate:
        level = rng.choice([0, 0.001, 0.01, 0.1, 0.2])
        parts.append(level * rng.normal(size=int(rng.uniform(0.1, 1) * rate)))
    return np.concatenate(parts)[: round(seconds * rate)].astype(np.float32)


@pytest.mark.parametrize(
    ("rate", "seconds", "longest"),
    [(8000, 60, 3.25), (16000, 30, 3.35), (22050, 20, 1.0), (8000, 12.3, 12.0), (8000, 3, 3.0)],
)
def test_long_audio_is_cut_where_python_cuts_it(node, tmp_path, rate, seconds, longest):
    script = """
    import { segmentsOf } from "./segments.js";
    console.log(JSON.stringify(segmentsOf(samples, RATE, LONGEST)));
    """
    for samples in (noise(0, rate, seconds), np.zeros(round(seconds * rate), np.float32)):
        samples.tofile(tmp_path / "samples")
        cut = node(SAMPLES + script, RATE=rate, LONGEST=longest)
        assert list(map(tuple, cut)) == segments_of(samples, rate, longest)
        assert len(cut) >= seconds / longest


@pytest.mark.parametrize("known", [1.5, 0.3, None])
def test_a_subnet_hears_no_more_at_once_than_in_training(node, tmp_path, known):
    rate = 1000
    samples = np.zeros(50 * rate, np.float32)
    samples[::400] = np.random.default_rng(0).integers(1, 3, size=125)
    samples.tofile(tmp_path / "samples")
    script = """
    const card = { location: "models/", max_symbols: 1, sample_rate: RATE, longest_seconds: KNOWN };
    const found = await (await Transducer.load(card, 1)).transcribe(samples);
    console.log(JSON.stringify({ ...found, heard, times: Object.keys(found.times) }));
    """
    found = node(SUBNET + SAMPLES + script, RATE=rate, KNOWN=known)
    longest = Cutting().of(SimpleNamespace(longest_seconds=known))
    parts = [samples[begin:end] for begin, end in segments_of(samples, rate, longest)]
    assert found["heard"] == [len(part) for part in parts]
    assert found["tokens"] == samples[samples > 0].tolist()
    assert found["text"] == join_words(
        "".join(" AB"[int(label)] for label in part if label) for part in parts
    )
    assert found["times"] == ["cutting", "features", "encoder", "search"]


def test_words_are_joined_as_python_does(node):
    script = """
    import { joinWords } from "./words.js";
    console.log(JSON.stringify(LISTS.map(joinWords)));
    """
    characters = [c for c in map(chr, range(sys.maxunicode)) if unicodedata.category(c)[0] in "LNP"]
    lists = [["a", c, "b"] for c in characters] + [[], [""], ["", "a", "", "b"], ["\u4f60 a", "b"]]
    assert {is_wide(c) for c in characters} == {True, False}
    assert node(script, LISTS=lists) == list(map(join_words, lists))
