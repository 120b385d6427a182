"use strict";
// The window around a person and its crop, as in `dppt_nb/crops.py`, and the box of a second look, as
// in `dppt_nb/inference.py`; a test holds them together.
// Pixels are counted from 0 at their centres; sizes are [height, width], boxes [x, y, w, h].

const PADDING = 1.25;  // size of the window over size of the grown box
const VOTES = 0.1;     // joints with a lower score do not vote on where the person is
const GROWTH = 1.1;    // a person's box over the box of the joints that vote

/** The window around a box: grown to the shape of the network's input, then padded. */
function windowOf(box, [height, width]) {
  const [x, y, w, h] = box;
  const side = Math.max(w, h * width / height) * PADDING;
  return { center: [x + w / 2, y + h / 2], size: [side * height / width, side] };
}

/** The person's box by the joints that were found; null where fewer than four of them vote. */
function poseBox(keypoints) {
  const sure = keypoints.filter(({ score }) => score >= VOTES);
  if (sure.length < 4) return null;
  const [across, down] = [0, 1].map((axis) => {
    const places = sure.map(({ photo }) => photo[axis]);
    const low = Math.min(...places);
    const length = Math.max(Math.max(...places) - low, 1);
    return [low - (GROWTH - 1) / 2 * length, GROWTH * length];
  });
  return [across[0], down[0], across[1], down[1]];
}

/** The map from photo to crop, `crop = zoom * photo + shift`; lengths run between pixel centres. */
function cropMap(window, [height, width]) {
  const zoom = (width - 1) / (window.size[1] - 1);
  const [x, y] = window.center;
  return { zoom, shift: [(width - 1) / 2 - zoom * x, (height - 1) / 2 - zoom * y] };
}

/** A point of the photo in the crop. */
function toCrop([x, y], { zoom, shift }) {
  return [zoom * x + shift[0], zoom * y + shift[1]];
}

/** A point of the crop in the photo. */
function toPhoto([x, y], { zoom, shift }) {
  return [(x - shift[0]) / zoom, (y - shift[1]) / zoom];
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The part of the photo that a crop needs; how many of its pixels fall on one of the crop's. */
function partFor(map, [height, width], photoSize) {
  const dense = Math.floor(Math.max(1, 1 / map.zoom));
  const [low, high] = [toPhoto([-1, -1], map), toPhoto([width, height], map)];
  const sides = [0, 1].map((axis) => {
    const length = photoSize[1 - axis];
    const start = clamp(Math.floor(low[axis]) - dense, 0, length - 1);
    return [start, clamp(Math.ceil(high[axis]) + dense, start + 1, length) - start];
  });
  return { x: sides[0][0], y: sides[1][0], w: sides[0][1], h: sides[1][1], dense };
}

/** Mean colour of blocks of `side` pixels; blocks at the right and lower edge may be smaller. */
function averaged({ data, width, height }, side) {
  const [across, down] = [Math.ceil(width / side), Math.ceil(height / side)];
  const sums = new Float32Array(3 * across * down);
  const counts = new Float32Array(across * down);
  for (let y = 0, pixel = 0; y < height; y++) {
    const first = Math.floor(y / side) * across;
    for (let x = 0; x < width; x++, pixel += 4) {
      const block = first + Math.floor(x / side);
      counts[block] += 1;
      sums[3 * block] += data[pixel];
      sums[3 * block + 1] += data[pixel + 1];
      sums[3 * block + 2] += data[pixel + 2];
    }
  }
  for (let i = 0; i < sums.length; i++) sums[i] /= counts[Math.floor(i / 3)];
  return { data: sums, width: across, height: down, channels: 3 };
}

/** The colour at a place between four pixels, each with its share, is put into `colour`; what lies
 *  outside is black. */
function sample({ data, width, height, channels }, x, y, colour) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  colour.fill(0);
  for (let corner = 0; corner < 4; corner++) {
    const [right, low] = [corner & 1, corner >> 1];
    const [column, row] = [left + right, top + low];
    if (column < 0 || column >= width || row < 0 || row >= height) continue;
    const share = (right ? x - left : left + 1 - x) * (low ? y - top : top + 1 - y);
    const pixel = channels * (row * width + column);
    for (let c = 0; c < 3; c++) colour[c] += share * data[pixel + c];
  }
}

/**
 * One crop in whole numbers from 0 to 255, red, green and blue of each pixel in turn. `pixelsOf`
 * gives the ImageData of a part of the photo, so that a large photo is never read as a whole.
 */
function cropPhoto(pixelsOf, photoSize, map, [height, width]) {
  const part = partFor(map, [height, width], photoSize);
  const pixels = pixelsOf(part.x, part.y, part.w, part.h);
  const source = part.dense > 1
    ? averaged(pixels, part.dense)
    : { data: pixels.data, width: part.w, height: part.h, channels: 4 };
  const middle = (part.dense - 1) / (2 * part.dense);  // of a block, in blocks
  const crop = new Uint8ClampedArray(3 * height * width);
  const colour = new Float64Array(3);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const [x, y] = toPhoto([column, row], map);
      sample(
        source, (x - part.x) / part.dense - middle, (y - part.y) / part.dense - middle, colour,
      );
      crop.set(colour, 3 * (row * width + column));  // rounded as it is stored
    }
  }
  return crop;
}

/** What the network takes: one plane a colour, mean subtracted, divided by the deviation. */
function normalized(crop, mean, std) {
  const pixels = crop.length / 3;
  const planes = new Float32Array(crop.length);
  for (let c = 0; c < 3; c++) {
    for (let i = 0; i < pixels; i++) {
      planes[c * pixels + i] = (crop[3 * i + c] - 255 * mean[c]) / (255 * std[c]);
    }
  }
  return planes;
}
