"use strict";
// What was found, as one sees it: on the photo, on the crops, by joint, in words and in rows.

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
  if (!state.photo) return;
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

/** One button a joint that any active network knows; the one that has the focus keeps it. */
function showJoints() {
  const focused = focusedJoint();
  const names = [...new Set(state.active.flatMap((network) => network.names))];
  $("joints").replaceChildren(...names.map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = words(name);
    button.dataset.joint = name;
    button.classList.toggle("shown", name === state.joint);
    button.addEventListener("focus", () => lookAt(name));
    button.addEventListener("blur", () => lookAt(null));
    button.addEventListener("pointerenter", () => lookAt(name));
    button.addEventListener("pointerleave", () => lookAt(focusedJoint()));
    button.addEventListener("click", () => lookAt(name));
    return button;
  }));
  [...$("joints").children].find(({ dataset }) => dataset.joint === focused)?.focus();
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
