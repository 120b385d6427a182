"use strict";
// Pictures of what was found: on the photo, and on the crops.

const COLOURS = { left: "#56b4e9", right: "#e69f00", middle: "#f5f5f5" };  // as in `keypoints.py`
const OUTLINE = "#191919";
const DROPPED = [72, 40, 120];  // as in `pruning.py`
const HEAT = [[0, 0, 0], [120, 28, 109], [237, 105, 37], [252, 255, 164]];  // as in `heatmaps.py`
const UNSURE = 0.2;  // a joint with a lower score is drawn hollow

/** A colour between cold (0) and hot (1). */
function heatColour(share) {
  const place = clamp(share, 0, 1) * (HEAT.length - 1);
  const step = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[step].map((low, c) => low + (HEAT[step + 1][c] - low) * (place - step));
}

/** The crop; patches that were dropped lie under violet. */
function paintPatches(image, crop, kept, { grid, image_size: [height, width] }) {
  const alive = new Set(kept);
  for (let i = 0; i < height * width; i++) {
    const colour = [crop[3 * i], crop[3 * i + 1], crop[3 * i + 2]];
    const here = alive.has(patchOf(i, grid, [height, width]));
    const shown = here ? colour : colour.map((value, c) => 0.25 * value + 0.75 * DROPPED[c]);
    image.data.set([...shown, 255], 4 * i);
  }
}

/** A line around the patches that are left, which also shows where the picture itself is dark. */
function outlinePatches(context, kept, { grid: [down, across] }) {
  const alive = new Set(kept);
  const [width, height] = [context.canvas.width / across, context.canvas.height / down];
  const here = (row, column) => (
    row >= 0 && row < down && column >= 0 && column < across && alive.has(row * across + column)
  );
  context.beginPath();
  for (let row = 0; row <= down; row++) {
    for (let column = 0; column <= across; column++) {
      const [x, y] = [column * width, row * height];
      if (here(row, column) !== here(row - 1, column)) addLine(context, x, y, width, 0);
      if (here(row, column) !== here(row, column - 1)) addLine(context, x, y, 0, height);
    }
  }
  context.strokeStyle = "#f2e34c";
  context.lineWidth = Math.max(1, context.canvas.width / 250);
  context.stroke();
}

function addLine(context, x, y, dx, dy) {
  context.moveTo(x, y);
  context.lineTo(x + dx, y + dy);
}

/** The number of the patch in which pixel `i` of the crop lies. */
function patchOf(i, [down, across], [height, width]) {
  const [row, column] = [Math.floor(i / width), i % width];
  return Math.floor(row * down / height) * across + Math.floor(column * across / width);
}

/** The crop in grey, coloured by a joint's attention to each patch. */
function paintAttention(image, crop, shares, { grid, image_size: [height, width] }) {
  const most = Math.max(...shares, 1e-12);
  for (let i = 0; i < height * width; i++) {
    const share = shares[patchOf(i, grid, [height, width])] / most;
    const grey = 0.3 * crop[3 * i] + 0.59 * crop[3 * i + 1] + 0.11 * crop[3 * i + 2];
    const heat = heatColour(share);
    const weight = 0.35 + 0.45 * Math.sqrt(share);
    image.data.set([...heat.map((c) => weight * c + (1 - weight) * grey), 255], 4 * i);
  }
}

/** A joint: round on the left, square on the right, a diamond in the middle. */
function jointPath(context, [x, y], radius, side) {
  context.beginPath();
  if (side === "left") context.arc(x, y, radius, 0, 2 * Math.PI);
  else if (side === "right") context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else {
    const far = 1.3 * radius;
    context.moveTo(x, y - far);
    for (const [dx, dy] of [[far, 0], [0, far], [-far, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
  }
}

/** The side of a limb: that of its ends, or the middle where they differ. */
function limbSide([a, b], sides) {
  if (sides[a] === sides[b] || sides[b] === "middle") return sides[a];
  return sides[a] === "middle" ? sides[b] : "middle";
}

/** Bones and joints; `points` are in pixels of the canvas. */
function drawSkeleton(context, points, scores, network, size, marked = null) {
  const sure = (joint) => scores[joint] >= UNSURE;
  context.lineCap = "round";
  for (const [width, outline] of [[size + 2, true], [size, false]]) {
    for (const [a, b] of network.limbs) {
      context.globalAlpha = sure(a) && sure(b) ? 1 : 0.35;
      context.strokeStyle = outline ? OUTLINE : COLOURS[limbSide([a, b], network.sides)];
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(...points[a]);
      context.lineTo(...points[b]);
      context.stroke();
    }
  }
  context.globalAlpha = 1;
  points.forEach((point, joint) => {
    jointPath(context, point, joint === marked ? 2.4 * size : 1.3 * size, network.sides[joint]);
    context.lineWidth = Math.max(1, size / 2);
    context.strokeStyle = sure(joint) ? OUTLINE : COLOURS[network.sides[joint]];
    context.fillStyle = COLOURS[network.sides[joint]];
    if (sure(joint)) context.fill();
    context.stroke();
  });
}

/** Fit a canvas's pixels to its place on the screen; gives screen pixels to one of the content. */
function fitCanvas(canvas, [height, width], most) {
  const ratio = window.devicePixelRatio || 1;
  const shown = Math.min(canvas.parentElement.clientWidth, most * width / height);
  canvas.style.width = `${shown}px`;
  canvas.width = Math.round(shown * ratio);
  canvas.height = Math.round(canvas.width * height / width);
  return canvas.width / width;
}

/** The box as a dashed line, and all around it shaded. */
function drawBox(context, box, zoom) {
  const [x, y, w, h] = box.map((value) => value * zoom);
  const { width, height } = context.canvas;
  context.fillStyle = "rgba(0, 0, 0, 0.45)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(x, y, w, h);
  context.fill("evenodd");
  for (const [colour, dash] of [["#000", []], ["#fff", [6, 6]]]) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash(dash);
    context.strokeRect(x, y, w, h);
  }
  context.setLineDash([]);
}
