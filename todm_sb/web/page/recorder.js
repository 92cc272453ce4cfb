// The microphone.

export class Recorder {
  #recorder = null;
  #recorded = null;

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
    // It may end before it is stopped, as when the microphone is unplugged.
    this.#recorded = new Promise((resolve) => {
      this.#recorder.addEventListener("dataavailable", ({ data }) => resolve(data), { once: true });
    });
    this.#recorder.start();
  }

  // What was recorded, as a file that the browser itself can decode.
  async stop() {
    const recorder = this.#recorder;
    this.#recorder = null;
    if (recorder.state !== "inactive") recorder.stop();
    recorder.stream.getTracks().forEach((track) => track.stop());
    return this.#recorded;
  }
}
