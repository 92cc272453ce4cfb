// A subnet on onnxruntime-web: samples -> features -> encoder -> search -> text.

import { env, InferenceSession, Tensor } from "./runtime/ort.wasm.min.mjs";
import { greedySearch } from "./search.js";
import { readTokens, textOf } from "./tokens.js";

export class Transducer {
  static async load({ location, max_symbols: maxSymbols }, threads) {
    env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
    env.wasm.numThreads = threads;
    env.logLevel = "error";
    const network = new Transducer();
    const folder = new URL(location, import.meta.url).href;
    for (const part of ["features", "encoder", "decoder", "joiner"]) {
      network[part] = await InferenceSession.create(`${folder}${part}.onnx`);
    }
    network.pieces = await readTokens(`${folder}tokens.txt`);
    network.maxSymbols = maxSymbols;
    return network;
  }

  async transcribe(samples) {
    const times = {};
    const timed = async (part, work) => {
      const start = performance.now();
      const result = await work();
      times[part] = (performance.now() - start) / 1000;
      return result;
    };
    const input = { samples: new Tensor("float32", samples, [1, samples.length]) };
    const features = await timed("features", () => this.features.run(input));
    const encoded = await timed("encoder", () => this.encoder.run(features));
    const tokens = await timed("search", () => greedySearch(this, encoded));
    return { text: textOf(tokens, this.pieces), tokens, times };
  }
}
