"use strict";
// Where photos come from: files, samples that travel with the page, and the webcam.

// a larger or longer photo is made smaller first: browsers refuse such canvases, some without a word
const MOST_PIXELS = 16e6;
const LONGEST = 16384;

/** Any picture that the browser can read, as pixels; turned as people see it, colours as stored. */
async function readPhoto(blob) {
  const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(blob, options);
  const canvas = canvasOf(bitmap, bitmap.width, bitmap.height);
  canvas.transparent = blob.type !== "image/jpeg" && isTransparent(bitmap);
  return canvas;
}

/** Whether a picture lets something through anywhere; read in tiles, which take little memory. */
function isTransparent(bitmap) {
  const tile = new OffscreenCanvas(512, 512).getContext("2d", { willReadFrequently: true });
  for (let y = 0; y < bitmap.height; y += 512) {
    for (let x = 0; x < bitmap.width; x += 512) {
      const part = [Math.min(512, bitmap.width - x), Math.min(512, bitmap.height - y)];
      tile.clearRect(0, 0, 512, 512);
      tile.drawImage(bitmap, -x, -y);
      const { data } = tile.getImageData(0, 0, ...part);
      for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return true;
    }
  }
  return false;
}

function canvasOf(source, width, height) {
  const area = Math.sqrt(MOST_PIXELS / (width * height));
  const shrink = Math.min(1, area, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * shrink));
  canvas.height = Math.max(1, Math.floor(height * shrink));
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  canvas.shrunkFrom = shrink < 1 ? `${width} x ${height}` : null;
  return canvas;
}

const photoSize = () => [state.photo.height, state.photo.width];
const wholeBox = () => [0, 0, state.photo.width, state.photo.height];
const pixelsOf = (...part) => state.photo.getContext("2d").getImageData(...part);

let chosen = 0;  // of two photos the one that was chosen later counts

/** Take a photo from anywhere; says so in one sentence where it cannot be read. */
async function takePhoto(blob, name) {
  const mine = ++chosen;
  say(`Reading ${name}.`);
  let photo = null;
  let why = ({ message }) => `${message}; choose a photo.`;  // a sample is missing
  try {
    const file = await blob;
    why = () => `${name} is no picture that this browser can read; take a JPEG or PNG file.`;
    photo = await readPhoto(file);
  } catch (error) {
    if (mine === chosen) complain(why(error));
    return;
  }
  if (mine !== chosen) return;
  stopWebcam();
  showPhoto(photo, name);
  await estimateAll();
}

function showPhoto(photo, name) {
  Object.assign(state, { photo, photoName: name, box: null });
  state.results.clear();
  showAll();
}

const takeSample = (name, title) => takePhoto(samplePhoto(name), title);

const samples = new Map();
async function samplePhoto(name) {
  if (!samples.has(name)) samples.set(name, await embedded(name));
  const bytes = Uint8Array.from(atob(samples.get(name)), (letter) => letter.charCodeAt(0));
  return new Blob([bytes]);
}

// The webcam

let opening = 0;  // the choice for which a webcam is not there yet; 0: none

async function startWebcam() {
  const again = opening;
  opening = ++chosen;
  if (again) return;  // a second click
  try {
    const stream = await openWebcam();
    if (opening === chosen) state.live = stream; else stopStream(stream);
  } catch (error) {
    if (opening === chosen) complain(whyNoWebcam(error));
  } finally {
    opening = 0;
  }
  if (state.live) await runWebcam(state.live);
}

function whyNoWebcam({ name }) {
  if (!navigator.mediaDevices) return "A webcam needs https or a local file; choose a photo.";
  if (name === "NotFoundError") return "There is no webcam; choose a photo.";
  return `The webcam cannot be used (${name}); allow it for this page, or choose a photo.`;
}

/** A stream that plays; one that cannot be played is stopped. */
async function openWebcam() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  for (const track of stream.getTracks()) {
    track.addEventListener("ended", () => webcamEnded(stream));
  }
  try {
    $("video").srcObject = stream;
    await $("video").play();
  } catch (error) {
    stopStream(stream);
    throw error;
  }
  return stream;
}

function stopStream(stream) {
  for (const track of stream.getTracks()) track.stop();
}

const WEBCAM_RUNS = "The webcam runs; each picture is forgotten when the next one comes.";

/** The camera was unplugged, or may not be used any more. */
function webcamEnded(stream) {
  if (state.live !== stream) return;
  stopWebcam();
  complain("The webcam was taken away; choose a photo, or start it again.");
}

async function runWebcam(stream) {
  showLive();
  say(WEBCAM_RUNS);
  showPhoto(pictureNow(), "the webcam");
  while (state.live === stream) {
    await estimateAll();
    await new Promise(requestAnimationFrame);  // the skeleton is painted
    if (state.live === stream) state.photo = pictureNow();  // shown when its skeleton is there
  }
  if (!state.live) sayFound();  // it was stopped after its last picture was answered
}

const pictureNow = () => canvasOf($("video"), $("video").videoWidth, $("video").videoHeight);

function stopWebcam() {
  if (!state.live) return;
  stopStream(state.live);
  state.live = null;
  showLive();
}

function showLive() {
  $("webcam").classList.toggle("shown", Boolean(state.live));
  // its words alone say what it does: "Stop the webcam, pressed" would tell that it is stopped
  $("webcam").textContent = state.live ? "Stop the webcam" : "Webcam";
}
