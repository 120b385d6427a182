"use strict";
// The page: its state, what it says, and how the networks are asked. It comes last and begins.

const $ = (id) => document.getElementById(id);

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

// The beginning

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
