"use strict";
// Runs the networks in a thread of its own, so that the page answers while they compute. Stands
// behind onnxruntime-web in one script; everything it needs is sent to it, nothing is fetched.

const sessions = new Map();

/** The bytes behind a base64 text of a gzip file. */
async function unpacked(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const tasks = {
  /** The run-time: its WebAssembly, and the script that starts it. */
  async start({ wasm, script }) {
    ort.env.wasm.numThreads = 1;  // more need headers that a plain server does not send
    const address = async (text, type) => (
      URL.createObjectURL(new Blob([await unpacked(text)], { type }))
    );
    ort.env.wasm.wasmPaths = {
      mjs: await address(script, "text/javascript"), wasm: await address(wasm, "application/wasm"),
    };
  },

  /** A network, once; a first run on a black picture, so that the reader's is not the slow one. */
  async load({ name, onnx, size }) {
    sessions.set(name, await ort.InferenceSession.create(await unpacked(onnx)));
    await tasks.run({ name, planes: new Float32Array(3 * size[0] * size[1]), size });
  },

  /** One person: normalised planes in; all outputs and the milliseconds out. */
  async run({ name, planes, size }) {
    const begin = performance.now();
    const images = new ort.Tensor("float32", planes, [1, 3, ...size]);
    const outputs = await sessions.get(name).run({ images });
    const plain = Object.entries(outputs).map(([key, { data, dims }]) => (
      [key, { data: data instanceof BigInt64Array ? Int32Array.from(data, Number) : data, dims }]
    ));
    return { outputs: Object.fromEntries(plain), milliseconds: performance.now() - begin };
  },
};

self.onmessage = async ({ data: { id, task, values } }) => {
  try {
    self.postMessage({ id, answer: await tasks[task](values) });
  } catch (error) {
    self.postMessage({ id, error: String(error.message || error) });
  }
};
