"use strict";
// What the reader does: draws or types a box, plays the layers, chooses and drops photos.

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
    if (!state.photo || !event.isPrimary) return;
    if (!start) return pointAt(event, drawnNetwork(), "photo", state.photo.width);
    state.box = boxBetween(start, placeOn(event));
    drawPhoto();
    showBox();
  });
  canvas.addEventListener("pointerleave", () => lookAt(focusedJoint()));
  canvas.addEventListener("pointerup", (event) => {
    if (!start || !event.isPrimary) return;
    state.box = boxBetween(start, placeOn(event));
    start = null;
    askAgain();
  });
  canvas.addEventListener("pointercancel", (event) => {    // the page was scrolled
    if (!start || !event.isPrimary) return;
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

// All controls

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
