// A subnet on onnxruntime-web: samples -> parts -> features -> encoder -> search -> text.

import { env, InferenceSession, Tensor } from "./runtime/ort.wasm.min.mjs";
import { greedySearch } from "./search.js";
import { segmentsOf } from "./segments.js";
import { readTokens, textOf } from "./tokens.js";
import { joinWords } from "./words.js";

// Seconds of a part at most where nobody knows how long the utterances of training were.
const UNKNOWN_LONGEST = 20;
// Seconds that a part may have in any case.
const SHORTEST_LIMIT = 1;

export class Transducer {
  static async load({ location, max_symbols, sample_rate, longest_seconds }, threads) {
    env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
    env.wasm.numThreads = threads;
    env.logLevel = "error";
    const network = new Transducer();
    const folder = new URL(location, import.meta.url).href;
    for (const part of ["features", "encoder", "decoder", "joiner"]) {
      network[part] = await InferenceSession.create(`${folder}${part}.onnx`);
    }
    network.pieces = await readTokens(`${folder}tokens.txt`);
    network.maxSymbols = max_symbols;
    network.sampleRate = sample_rate;
    network.longest = Math.max(longest_seconds || UNKNOWN_LONGEST, SHORTEST_LIMIT);
    return network;
  }

  async transcribe(samples) {
    const times = {};
    const timed = async (part, work) => {
      const start = performance.now();
      const result = await work();
      times[part] = (times[part] ?? 0) + (performance.now() - start) / 1000;
      return result;
    };
    const cut = await timed("cutting", () => segmentsOf(samples, this.sampleRate, this.longest));
    const found = [];
    for (const [begin, end] of cut) {
      const part = new Tensor("float32", samples.subarray(begin, end), [1, end - begin]);
      const features = await timed("features", () => this.features.run({ samples: part }));
      const encoded = await timed("encoder", () => this.encoder.run(features));
      found.push(await timed("search", () => greedySearch(this, encoded)));
    }
    const text = joinWords(found.map((tokens) => textOf(tokens, this.pieces)));
    return { text, tokens: found.flat(), times };
  }
}
