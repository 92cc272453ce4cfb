// Memory of WebAssembly in this worker. onnxruntime-web does not show the one it makes, so each is
// noted when it is made.

const made = [];

WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(...settings) {
    super(...settings);
    made.push(this);
  }
};

export const heapBytes = () => made.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
