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
    try {
      const recorder = new MediaRecorder(stream);
      // It may end before it is stopped, as when the microphone is unplugged.
      this.#recorded = new Promise((resolve) => {
        recorder.addEventListener("dataavailable", ({ data }) => resolve(data), { once: true });
      });
      recorder.start();
      this.#recorder = recorder;
    } catch (error) {
      release(stream);
      throw new Error(`This browser does not record: ${error.message}`);
    }
  }

  // What was recorded, as a file that the browser itself can decode.
  async stop() {
    const recorder = this.#recorder;
    this.#recorder = null;
    if (recorder.state !== "inactive") recorder.stop();
    release(recorder.stream);
    return this.#recorded;
  }
}

const release = (stream) => stream.getTracks().forEach((track) => track.stop());
