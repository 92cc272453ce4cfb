// A subnet in a worker of its own: the page stays awake, and all its memory goes with it.

export class Recognizer {
  #worker = new Worker("worker.js", { type: "module" });

  constructor(model, threads) {
    // Settled when the subnet has been loaded.
    this.ready = this.#ask({ model, threads });
  }

  // Float32Array -> {text, tokens, times, heap}
  transcribe(samples) {
    return this.#ask({ samples });
  }

  close() {
    this.#worker.terminate();
  }

  // One question at a time.
  #ask(question) {
    return new Promise((resolve, reject) => {
      this.#worker.onerror = (event) => reject(new Error(event.message ?? "The page is not whole"));
      this.#worker.onmessage = ({ data }) =>
        "error" in data ? reject(new Error(data.error)) : resolve(data);
      this.#worker.postMessage(question);
    });
  }
}
