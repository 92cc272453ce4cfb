// Greedy search of a transducer, as todm_sb/inference/onnx.py does it.

import { Tensor } from "./runtime/ort.wasm.min.mjs";

const BLANK = 0;

// The labels of one utterance: at each frame the likeliest ones until blank, or maxSymbols of them.
export async function greedySearch({ decoder, joiner, maxSymbols }, encoded) {
  const { data, dims } = encoded.encoder_out;
  const [nFrames, width] = [Number(encoded.encoder_out_lens.data[0]), dims[2]];
  const tokens = [];
  let { output, feeds } = await step(decoder, initialFeeds(decoder));
  for (let t = 0; t < nFrames; t++) {
    const frame = new Tensor("float32", data.subarray(t * width, (t + 1) * width), [1, width]);
    for (let n = 0; n < maxSymbols; n++) {
      const { logit } = await joiner.run({ encoder_out: frame, decoder_out: output });
      const label = argmax(logit.data);
      if (label === BLANK) break;
      tokens.push(label);
      const labels = [...feeds.y.data.subarray(1), BigInt(label)];
      ({ output, feeds } = await step(decoder, { ...feeds, y: int64(labels) }));
    }
  }
  return tokens;
}

// Finds the labels: what the joiner takes, and what to feed next, where labels still have to go in.
async function step(decoder, feeds) {
  const { decoder_out: output, ...states } = await decoder.run(feeds);
  const next = Object.entries(states).map(([name, state]) => [name.replace(/^next_/, ""), state]);
  return { output, feeds: { y: feeds.y, ...Object.fromEntries(next) } };
}

// Before the first label: blanks, and states of zeros.
function initialFeeds(decoder) {
  const feeds = {};
  for (const { name, shape } of decoder.inputMetadata) {
    const dims = [1, ...shape.slice(1)];
    const size = dims.reduce((a, b) => a * b);
    feeds[name] = name === "y" ? int64(Array(size).fill(0n)) : new Tensor("float32", new Float32Array(size), dims);
  }
  return feeds;
}

const int64 = (labels) => new Tensor("int64", BigInt64Array.from(labels), [1, labels.length]);

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
