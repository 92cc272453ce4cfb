// The other side of recognizer.js.

import { heapBytes } from "./heap.js"; // before onnxruntime-web, whose memory it watches
import { Transducer } from "./transducer.js";

let network = null;

async function answer({ model, threads, samples }) {
  if (samples) return network.transcribe(samples);
  const start = performance.now();
  network = await Transducer.load(model, threads);
  const took = (performance.now() - start) / 1000;
  // A browser compiles better what has run: the first recording finds it done.
  await network.transcribe(new Float32Array(model.sample_rate));
  return { took };
}

self.addEventListener("message", async ({ data }) => {
  try {
    self.postMessage({ ...(await answer(data)), heap: heapBytes() });
  } catch (error) {
    self.postMessage({ error: `onnxruntime-web: ${error.message ?? error}` });
  }
});
