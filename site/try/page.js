"use strict";
// The page: what is chosen, what was found, and the controls between them.

const $ = (id) => document.getElementById(id);
// a larger or longer photo is made smaller first: browsers refuse such canvases, some without a word
const MOST_PIXELS = 16e6;
const LONGEST = 16384;

const state = {
  photo: null,        // canvas with the photo's pixels
  photoName: "",
  box: null,          // [x, y, width, height]; null: the whole photo
  active: [],         // networks that have been asked for
  results: new Map(), // name of a network -> what `estimate` gave
  joint: null,        // name of the joint whose attention is shown
  layer: Infinity,    // layers done; the last one unless the reader moves the slider
  live: null,         // the webcam's stream while it runs
};

let complained = false;  // what could not be done is said until the reader's next act

/** Say what an act does. */
function say(words) {
  complained = false;
  $("status").textContent = words;
}

function complain(words) {
  say(words);
  complained = true;
}

/** Say what comes by itself, such as an answer. */
function report(words) {
  if (!complained && $("status").textContent !== words) say(words);
}

const words = (name) => name.replaceAll("_", " ");
const round = (value) => Math.round(value);

// The photo

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
  let photo;
  try {
    photo = await readPhoto(await blob);
  } catch {
    if (mine === chosen) {
      complain(`${name} is no picture that this browser can read; take a JPEG or PNG file.`);
    }
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
}

const pictureNow = () => canvasOf($("video"), $("video").videoWidth, $("video").videoHeight);

function stopWebcam() {
  if (!state.live) return;
  stopStream(state.live);
  state.live = null;
  showLive();
}

function showLive() {
  $("webcam").setAttribute("aria-pressed", Boolean(state.live));
  $("webcam").textContent = state.live ? "Stop the webcam" : "Webcam";
}

// Running the networks

let asked = 0;  // of two questions the later one counts

/** Ask every active network about the photo and the box of this moment. */
async function estimateAll() {
  if (!state.photo) return;
  const mine = ++asked;
  for (const network of [...state.active]) {
    try {
      if (!await estimateOne(network, mine)) return;
    } catch (error) {
      if (mine !== asked) return;
      complain(`${network.label} cannot run here: ${error.message}.`);
      takeOut(network);
    }
  }
  if (state.live) report(WEBCAM_RUNS); else sayFound();
}

/** The same, as an act of the reader. */
function askAgain() {
  complained = false;
  return estimateAll();
}

/** Whether the answer still counts when it comes. */
async function estimateOne(network, mine) {
  if (!loaded.has(network.name)) report(`Loading ${network.label} (${network.megabytes} MB).`);
  const result = await estimate(network, pixelsOf, photoSize(), state.box, $("method").value);
  if (mine !== asked) return false;
  state.results.set(network.name, result);
  showAll();
  return true;
}

/** What cannot run may be added again; the last network stays, but no webcam runs for it. */
function takeOut(network) {
  if (state.active.length === 1) return stopWebcam();
  state.active = state.active.filter((other) => other !== network);
  state.results.delete(network.name);
  showChoices();
  showPanels();
  showAll();
}

function sayFound() {
  if (!state.active.every(({ name }) => state.results.has(name))) return;
  const network = drawnNetwork();
  const { keypoints, looks } = state.results.get(network.name);
  const sure = keypoints.filter(({ score }) => score >= UNSURE).length;
  const results = state.active.map(({ name }) => state.results.get(name));
  const sum = (value) => results.map(value).reduce((a, b) => a + b);
  const time = round(sum(({ milliseconds, around }) => milliseconds + around));
  report(`${network.label} found ${keypoints.length} joints in ${state.photoName}, `
    + `${sure} of them with a score of at least ${UNSURE}. It looked ${timesOf(looks)}. `
    + `${countOf(results.length, "network")} took ${time} ms for `
    + `${countOf(sum((result) => result.looks), "look")}, from the photo to the joints.`);
}

const timesOf = (looks) => (looks === 2 ? "twice" : "once");
const countOf = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** Load one more network and let it answer too. */
async function addNetwork(network) {
  state.active.push(network);
  showChoices();
  showPanels();
  await askAgain();
}

// Showing

const drawnNetwork = () => state.active.find(({ name }) => name === $("drawn").value)
  ?? state.active[0];

/** The skeleton and the words of another network, which has answered. */
function drawAnother() {
  complained = false;
  showAll();
  if (!state.live) sayFound();
}

function showAll() {
  drawPhoto();
  showBox();
  showLayer();
  drawPanels();
  showRows();
}

function drawPhoto() {
  if (!state.photo) return;
  const canvas = $("photo");
  const zoom = fitCanvas(canvas, photoSize(), 460);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(state.photo, 0, 0, canvas.width, canvas.height);
  const network = drawnNetwork();
  const result = state.results.get(network.name);
  const box = state.box ?? (result?.looks === 2 ? result.box : null);
  if (box) drawBox(context, box, zoom);
  canvas.setAttribute("aria-label", result
    ? `${state.photoName} with the skeleton that ${network.label} found`
    : `${state.photoName}, no skeleton yet`);
  if (!result) return;
  const points = result.keypoints.map(({ photo }) => photo.map((value) => (value + 0.5) * zoom));
  const size = clamp(canvas.width / 110, 3, 8);
  const joint = network.names.indexOf(state.joint);
  drawSkeleton(context, points, scoresOf(result), network, size, joint);
}

const scoresOf = (result) => result.keypoints.map(({ score }) => score);

function showBox() {
  const box = state.box ?? wholeBox();
  ["x", "y", "w", "h"].forEach((side, i) => {
    const field = $(`box-${side}`);
    // not while somebody types in it
    if (field !== document.activeElement) field.value = round(box[i]);
  });
  const small = state.photo.shrunkFrom
    ? ` The photo was made smaller, it had ${state.photo.shrunkFrom}.` : "";
  const clear = state.photo.transparent ? " What is transparent in the photo counts as black here; "
    + "dppt predict takes the colours that are stored beneath." : "";
  $("box-words").textContent = (state.box
    ? `The box: ${boxInWords(box)}.`
    : `The box: the whole photo, ${box[2]} x ${box[3]} pixels.`) + small + clear + looksInWords();
}

function boxInWords(box) {
  const [x, y, w, h] = box.map(round);
  return `${w} x ${h} pixels, its corner at ${x}, ${y}`;
}

/** How the network whose skeleton is drawn looked at a photo without a box. */
function looksInWords() {
  const network = drawnNetwork();
  const result = state.results.get(network.name);
  if (state.box || !result?.whole) return "";
  return result.looks === 2
    ? ` ${network.label} looked twice; the second time in the dashed box around the joints that it `
      + `had found: ${boxInWords(result.box)}.`
    : ` ${network.label} looked once: fewer than four joints had a score of at least ${VOTES}, too `
      + "few to say where to look again. Draw a box around the person.";
}

/** How many layers are done in a network's picture. */
const layersDone = (network) => Math.min(state.layer, network.depth);

function showLayer() {
  const deepest = Math.max(...state.active.map(({ depth }) => depth));
  $("layer").max = deepest;
  const layer = Math.min(state.layer, deepest);
  $("layer").value = layer;
  $("layer-words").textContent = layer ? `after layer ${layer} of ${deepest}` : "before the first";
  $("layer").setAttribute("aria-valuetext", $("layer-words").textContent);
}

function patchesLeft(network, result) {
  const all = network.grid[0] * network.grid[1];
  const left = keptNow(network, result).length;
  return left === all ? `all ${all} patches` : `${left} of ${all} patches`;
}

/** A place for each active network's crop. */
function showPanels() {
  $("panels").replaceChildren(...state.active.map((network) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.id = `crop-${network.name}`;
    for (const kind of ["pointermove", "pointerdown"]) {
      canvas.addEventListener(kind, (event) => (
        pointAt(event, network, "crop", network.image_size[1])
      ));
    }
    canvas.addEventListener("pointerleave", () => lookAt(focusedJoint()));
    const place = document.createElement("div");
    place.append(canvas);
    const caption = document.createElement("figcaption");
    caption.id = `caption-${network.name}`;
    caption.innerHTML = "<strong></strong><span></span><span></span>";
    caption.firstChild.textContent = network.label;
    figure.append(place, caption);
    return figure;
  }));
  const drawn = $("drawn").value;
  $("drawn").replaceChildren(...state.active.map(({ name, label }) => (
    new Option(label, name, false, name === drawn)
  )));
  showJoints();
  drawPanels();
}

function drawPanels() {
  for (const network of state.active) {
    const result = state.results.get(network.name);
    if (result) drawPanel(network, result);
  }
}

function drawPanel(network, result) {
  const [height, width] = network.image_size;
  const canvas = $(`crop-${network.name}`);
  const context = canvas.getContext("2d");
  const picture = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  const joint = network.names.indexOf(state.joint);
  const patches = network.grid[0] * network.grid[1];
  if (joint < 0) paintPatches(image, result.crop, keptNow(network, result), network);
  else {
    const shares = result.attention.subarray(joint * patches, (joint + 1) * patches);
    paintAttention(image, result.crop, shares, network);
  }
  picture.getContext("2d").putImageData(image, 0, 0);
  const zoom = fitCanvas(canvas, network.image_size, 330);
  context.imageSmoothingEnabled = joint < 0;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  if (joint < 0) outlinePatches(context, keptNow(network, result), network);
  const points = result.keypoints.map(({ crop }) => crop.map((value) => (value + 0.5) * zoom));
  const size = clamp(canvas.width / 110, 1.5, 4);
  drawSkeleton(context, points, scoresOf(result), network, size, joint);
  describePanel(network, result, canvas);
}

const keptNow = (network, result) => (layersDone(network)
  ? result.kept[layersDone(network) - 1]
  : Array.from({ length: network.grid[0] * network.grid[1] }, (_, patch) => patch));

function describePanel(network, result, canvas) {
  const left = patchesLeft(network, result);
  const [, patches, times] = $(`caption-${network.name}`).children;
  const known = network.names.includes(state.joint);
  patches.textContent = state.joint === null ? left
    : known ? `attention of the ${words(state.joint)}` : `knows no ${words(state.joint)}`;
  times.textContent = `${countOf(result.looks, "look")}: ${round(result.milliseconds)} ms, crop and `
    + `decoding ${round(result.around)} ms`;
  const look = result.looks === 2 ? " at its second look" : "";
  canvas.setAttribute("aria-label", `What ${network.label} sees${look}: ${patches.textContent}`);
}

// Joints

/** One button a joint that any active network knows. */
function showJoints() {
  const names = [...new Set(state.active.flatMap((network) => network.names))];
  $("joints").replaceChildren(...names.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words(name);
    button.dataset.joint = name;
    button.addEventListener("focus", () => lookAt(name));
    button.addEventListener("blur", () => lookAt(null));
    button.addEventListener("pointerenter", () => lookAt(name));
    button.addEventListener("pointerleave", () => lookAt(focusedJoint()));
    button.addEventListener("click", () => lookAt(name));
    return button;
  }));
}

/** Show a joint's attention, or the patches again. */
function lookAt(name) {
  if (state.joint === name) return;
  state.joint = name;
  for (const button of $("joints").children) {
    button.classList.toggle("shown", button.dataset.joint === name);
  }
  drawPanels();
  drawPhoto();
}

/** Look at the joint under the pointer; `place` names where a keypoint lies in the picture. */
function pointAt(event, network, place, width) {
  const result = state.results.get(network.name);
  if (!result) return;
  const frame = event.currentTarget.getBoundingClientRect();
  const zoom = width / frame.width;
  const pointer = [(event.clientX - frame.left) * zoom, (event.clientY - frame.top) * zoom];
  const joint = nearest(result.keypoints.map((keypoint) => keypoint[place]), pointer, width / 15);
  lookAt(joint === null ? focusedJoint() : network.names[joint]);
}

/** The number of the point next to a place, within `reach`; null if there is none. */
function nearest(points, [x, y], reach) {
  const far = points.map((point) => Math.hypot(point[0] - x, point[1] - y));
  const best = far.indexOf(Math.min(...far));
  return far[best] < reach ? best : null;
}

/** The joint whose button has the focus, or null. */
const focusedJoint = () => document.activeElement?.dataset.joint ?? null;

function showRows() {
  const network = drawnNetwork();
  const result = state.results.get(network.name);
  $("rows").replaceChildren(...(result?.keypoints ?? []).map(({ photo, score }, joint) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = words(network.names[joint]);
    row.append(head, ...[photo[0].toFixed(1), photo[1].toFixed(1), score.toFixed(2)].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

/** A button for each network that is not yet loaded; the next takes the focus of one that goes. */
function showChoices() {
  const focused = document.activeElement;
  const at = [...$("more").children].indexOf(focused);
  const rest = NETWORKS.filter((network) => !state.active.includes(network));
  $("more").replaceChildren(...rest.map((network) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `add-${network.name}`;
    button.textContent = `Add ${network.label} (${network.megabytes} MB)`;
    button.addEventListener("click", ({ detail }) => {
      if (detail < 2) addNetwork(network);  // the second of a double click is on another button
    });
    button.addEventListener("keydown", (event) => {
      if (event.repeat && event.key === "Enter") event.preventDefault();
    });
    return button;
  }));
  if (at < 0) return;
  ($(focused.id) ?? $("more").children[at] ?? $("more").lastChild ?? $("inside-title")).focus();
}

function showAbout() {
  $("about").replaceChildren(...NETWORKS.map((network) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [network.label, network.about];
    const pair = document.createElement("div");
    pair.append(term, text);
    return pair;
  }));
  $("limits").replaceChildren(...LIMITS.map((text) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    return paragraph;
  }));
}

// Drawing a box

function placeOn(event) {
  const place = $("photo").getBoundingClientRect();
  const zoom = state.photo.width / place.width;
  return [
    clamp((event.clientX - place.left) * zoom, 0, state.photo.width),
    clamp((event.clientY - place.top) * zoom, 0, state.photo.height),
  ];
}

/** The box between two corners; none if it is too small to be meant. */
function boxBetween([x, y], [u, v]) {
  const box = [Math.min(x, u), Math.min(y, v), Math.abs(x - u), Math.abs(y - v)].map(round);
  const least = 0.02 * Math.max(state.photo.width, state.photo.height);
  return Math.max(box[2], box[3]) < least || !box[2] || !box[3] ? null : box;
}

function dragBox() {
  let start = null;
  let before = null;
  const canvas = $("photo");
  canvas.addEventListener("pointerdown", (event) => {
    // no box is drawn by a right click, nor by a second finger
    if (!state.photo || !event.isPrimary || event.button) return;
    before = state.box;
    start = placeOn(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!state.photo) return;
    if (!start) return pointAt(event, drawnNetwork(), "photo", state.photo.width);
    state.box = boxBetween(start, placeOn(event));
    drawPhoto();
    showBox();
  });
  canvas.addEventListener("pointerleave", () => lookAt(focusedJoint()));
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    state.box = boxBetween(start, placeOn(event));
    start = null;
    askAgain();
  });
  canvas.addEventListener("pointercancel", () => {    // the page was scrolled
    if (!start) return;
    start = null;
    state.box = before;
    drawPhoto();
    showBox();
  });
}

/** One number of the box; a box that is moved over the edge of the photo ends there. */
function typeBox({ target }) {
  if (!state.photo) return;
  const side = ["x", "y", "w", "h"].indexOf(target.id.at(-1));
  const [height, width] = photoSize();
  const box = [...(state.box ?? wholeBox())];
  const least = side < 2 ? 0 : 1;
  const most = [width - 1, height - 1, width - box[0], height - box[1]][side];
  const value = target.valueAsNumber;
  if (value >= least && value <= most) {
    box[side] = value;
    const [x, y, w, h] = box;
    state.box = [x, y, Math.min(w, width - x), Math.min(h, height - y)];
    askAgain();
  } else {
    complain(`The ${["left", "top", "width", "height"][side]} must be a number from ${least} to `
      + `${round(most)}; the box stays as it was.`);
  }
  target.value = round((state.box ?? wholeBox())[side]);    // `showBox` leaves the field in use
  showBox();
}

// Playing the layers

let timer = null;

function play() {
  if (timer) return stopPlaying();
  state.layer = 0;
  $("play").textContent = "Stop";
  timer = setInterval(() => {
    if (state.layer >= Number($("layer").max)) return stopPlaying();
    moveTo(state.layer + 1);
  }, 450);
  moveTo(0);
}

function stopPlaying() {
  clearInterval(timer);
  timer = null;
  $("play").textContent = "Play";
}

function moveTo(layer) {
  state.layer = layer;
  showLayer();
  drawPanels();
}

// Controls

function listen() {
  $("file").addEventListener("change", ({ target }) => {
    if (target.files[0]) takePhoto(target.files[0], target.files[0].name);
    target.value = "";
  });
  $("astronaut").addEventListener("click", () => takeSample("astronaut", "the astronaut"));
  let drawn = 0;
  $("synthetic").addEventListener("click", () => {
    takeSample(`person-${drawn++ % DRAWN_PEOPLE}`, "a drawn person");
  });
  $("webcam").addEventListener("click", () => (state.live ? stopWebcam() : startWebcam()));
  $("whole").addEventListener("click", () => { state.box = null; showBox(); askAgain(); });
  for (const side of ["x", "y", "w", "h"]) $(`box-${side}`).addEventListener("change", typeBox);
  $("layer").addEventListener("input", ({ target }) => { stopPlaying(); moveTo(+target.value); });
  $("play").addEventListener("click", play);
  $("drawn").addEventListener("change", drawAnother);
  $("method").addEventListener("change", askAgain);
  window.addEventListener("resize", () => { drawPhoto(); drawPanels(); });
  dragBox();
  takeDropped();
}

function takeDropped() {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    takeFirst(event.dataTransfer.files, "dropped");
  });
  document.addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    if (files.length || event.target.tagName !== "INPUT") takeFirst(files, "pasted");
  });
}

/** Take the first of the files that may be a picture: without a suffix their type is not known. */
function takeFirst(files, how) {
  const photos = [...files].filter(({ type }) => !type || type.startsWith("image/"));
  if (!photos.length) return complain(`What was ${how} is no picture.`);
  const name = how === "pasted" ? "the pasted photo" : photos[0].name;
  takePhoto(photos[0], photos.length > 1 ? `${name} (the first of ${photos.length})` : name);
}

function linkTo(address, title) {
  const link = document.createElement("a");
  [link.href, link.textContent] = [address, title];
  return link;
}

function begin() {
  state.active = [NETWORKS[0]];
  $("runtime").textContent = RUNTIME;
  if (HOME) $("home").append(" ", linkTo(HOME, "All pages of dppt-nb"), ".");
  if (GLOSSARY) $("glossary").append(" Words are explained in the ", linkTo(GLOSSARY, "glossary"), ".");
  listen();
  showChoices();
  showPanels();
  showAbout();
  showLayer();
  $("astronaut").click();
}

begin();
