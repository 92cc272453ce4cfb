"""A subnet of the page in Node, on models that pretend: each sample but 0 is a label they hear."""

import json
import shutil
import subprocess

import pytest

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
