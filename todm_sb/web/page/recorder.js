// The microphone.

export class Recorder {
  #recorder = null;

  get active() {
    return this.#recorder !== null;
  }

  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("A browser lends its microphone to https or localhost only: open the page there");
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    } catch (error) {
      throw new Error(`No microphone: ${error.message}`);
    }
    this.#recorder = new MediaRecorder(stream);
    this.#recorder.start();
  }

  // What was recorded, as a file that the browser itself can decode.
  async stop() {
    const recorder = this.#recorder;
    this.#recorder = null;
    const recorded = new Promise((resolve) => {
      recorder.addEventListener("dataavailable", (event) => resolve(event.data), { once: true });
    });
    recorder.stop();
    recorder.stream.getTracks().forEach((track) => track.stop());
    return recorded;
  }
}
