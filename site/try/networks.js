"use strict";
// Networks are loaded when they are asked for, and run in the worker.

const EMBEDDED = {};  // filled by scripts in `embedded/`: name -> base64 text of a gzip file

/** Load the script of an embedded file; a script loads without a server too, where fetch cannot. */
function embedded(name) {
  return new Promise((resolve, reject) => {
    if (EMBEDDED[name]) return resolve(EMBEDDED[name]);
    const script = document.createElement("script");
    script.src = `embedded/${name}.js`;
    script.onload = () => {
      resolve(EMBEDDED[name]);
      delete EMBEDDED[name];
      script.remove();
    };
    script.onerror = () => reject(new Error(`embedded/${name}.js is missing beside this page`));
    document.head.append(script);
  });
}

let starting = null;

/** The worker, started once: `ask(task, values)` sends it a task and waits for the answer. */
function theWorker() {
  starting ??= startWorker().catch((error) => { starting = null; throw error; });
  return starting;
}

async function startWorker() {
  const [code, script, wasm] = await Promise.all(["worker", "ort-mjs", "ort-wasm"].map(embedded));
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const waiting = new Map();
  let questions = 0;
  worker.onmessage = ({ data: { id, answer, error } }) => {
    const question = waiting.get(id);
    waiting.delete(id);
    if (error) question?.reject(new Error(error)); else question?.resolve(answer);
  };
  worker.onerror = ({ message }) => {
    for (const { reject } of waiting.values()) reject(new Error(message));
    waiting.clear();
  };
  const ask = (task, values) => new Promise((resolve, reject) => {
    const id = ++questions;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, task, values });
  });
  await ask("start", { wasm, script });
  return ask;
}

const loading = new Map();  // name -> promise
const loaded = new Set();   // names

/** Load a network, once. */
function loadNetwork({ name, image_size: size }) {
  if (!loading.has(name)) {
    const load = async () => {
      const [ask, onnx] = await Promise.all([theWorker(), embedded(name)]);
      await ask("load", { name, onnx, size });
      loaded.add(name);
    };
    loading.set(name, load().catch((error) => { loading.delete(name); throw error; }));
  }
  return loading.get(name);
}

/** The patches that are left after each layer, counted from 0: all of the grid at first. */
function survivors(outputs, { grid, depth }) {
  let kept = Array.from({ length: grid[0] * grid[1] }, (_, patch) => patch);
  return Array.from({ length: depth }, (_, layer) => {
    kept = outputs[`kept_${layer}`] ? Array.from(outputs[`kept_${layer}`].data) : kept;
    return kept;
  });
}

/**
 * One person, in a box or, where that is null, in the whole photo. The whole photo is looked at
 * twice, the second time in the box of the joints that the first look found, as in
 * `dppt_nb/predictor.py`; where too few joints say where that is, a second look would see the same.
 * Gives what the last look gave, with the times of all of them.
 */
async function estimate(network, pixelsOf, photoSize, box, method = "dark") {
  await loadNetwork(network);
  const look = (where) => lookOnce(network, pixelsOf, photoSize, where, method);
  const first = await look(box ?? [0, 0, photoSize[1], photoSize[0]]);
  const closer = box ? null : poseBox(first.keypoints);
  if (!closer) return { ...first, whole: !box, looks: 1 };
  const second = await look(closer);
  return {
    ...second, whole: true, looks: 2,
    milliseconds: first.milliseconds + second.milliseconds,
    around: first.around + second.around,
  };
}

/** One look: keypoints in the photo and in the crop, surviving patches, attention, times. */
async function lookOnce(network, pixelsOf, photoSize, box, method) {
  const begin = performance.now();
  const window = windowOf(box, network.image_size);
  const map = cropMap(window, network.image_size);
  const crop = cropPhoto(pixelsOf, photoSize, map, network.image_size);
  const planes = normalized(crop, network.mean, network.std);
  const ready = performance.now();
  const ask = await theWorker();
  const values = { name: network.name, planes, size: network.image_size };
  const { outputs, milliseconds } = await ask("run", values);
  const back = performance.now();
  const size = outputs.heatmaps.dims.slice(2);
  const heatmapMap = cropMap(window, size);
  const found = decode(outputs.heatmaps.data, network.names.length, size, method, network.kernel);
  const keypoints = found.map(({ x, y, score }) => {
    const photo = toPhoto([x, y], heatmapMap);
    return { photo, crop: toCrop(photo, map), score };
  });
  return {
    box, crop, keypoints, milliseconds,
    around: ready - begin + performance.now() - back,  // cutting and decoding
    kept: survivors(outputs, network),
    attention: outputs.keypoint_attention.data,  // joints x patches of the grid
  };
}
