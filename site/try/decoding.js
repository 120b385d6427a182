"use strict";
// From heatmaps to keypoints, as in `dppt_nb/heatmaps.py`; a test holds the two together.

/** The highest pixel of one map, and its height. */
function findPeak(map, width) {
  let best = 0;
  for (let i = 1; i < map.length; i++) if (map[i] > map[best]) best = i;
  return { x: best % width, y: Math.floor(best / width), score: map[best] };
}

/** A Gaussian whose deviation follows from its size as in OpenCV: 2 pixels for 11. */
function blurKernel(size) {
  const sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8;
  const middle = Math.floor(size / 2);
  const weights = Array.from({ length: size }, (_, i) => (
    Math.exp(-((i - middle) ** 2) / (2 * sigma ** 2))
  ));
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}

/** The blurred map at one pixel; nothing lies outside the map. */
function blurredAt(map, [height, width], x, y, kernel) {
  const reach = Math.floor(kernel.length / 2);
  let value = 0;
  for (let dy = -reach; dy <= reach; dy++) {
    if (y + dy < 0 || y + dy >= height) continue;
    for (let dx = -reach; dx <= reach; dx++) {
      if (x + dx < 0 || x + dx >= width) continue;
      value += kernel[reach + dy] * kernel[reach + dx] * map[(y + dy) * width + x + dx];
    }
  }
  return value;
}

/** One Newton step to the top of a bump, given the height at steps from its highest pixel. */
function taylorStep(at) {
  const [gx, gy] = [(at(1, 0) - at(-1, 0)) / 2, (at(0, 1) - at(0, -1)) / 2];
  const hxx = (at(2, 0) - 2 * at(0, 0) + at(-2, 0)) / 4;
  const hyy = (at(0, 2) - 2 * at(0, 0) + at(0, -2)) / 4;
  const hxy = (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)) / 4;
  const det = hxx * hyy - hxy ** 2;
  if (det === 0) return [0, 0];
  return [(hxy * gy - hyy * gx) / det, (hxy * gx - hxx * gy) / det];
}

/** DARK: blur, logarithm, one Taylor step around the peak; none within two pixels of the border. */
function darkOffset(map, [height, width], { x, y }, size) {
  if (x < 2 || x > width - 3 || y < 2 || y > height - 3) return [0, 0];
  const [kernel, limit] = [blurKernel(size), Math.floor(size / 2)];
  const at = (dx, dy) => (
    Math.log(Math.max(blurredAt(map, [height, width], x + dx, y + dy, kernel), 1e-10))
  );
  return taylorStep(at).map((step) => clamp(step, -limit, limit));
}

/** Where each map says that its joint is, in heatmap pixels, and the height of the map there; DARK
 *  blurs by `size` pixels. */
function decode(heatmaps, joints, [height, width], method, size) {
  return Array.from({ length: joints }, (_, joint) => {
    const map = heatmaps.subarray(joint * height * width, (joint + 1) * height * width);
    const peak = findPeak(map, width);
    const [dx, dy] = method === "dark" ? darkOffset(map, [height, width], peak, size) : [0, 0];
    const seen = peak.score > 0 ? 1 : 0;
    return { x: seen * (peak.x + dx), y: seen * (peak.y + dy), score: peak.score };
  });
}
