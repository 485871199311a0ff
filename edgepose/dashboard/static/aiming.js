// The walk test: where in the frame bodies are found well, badly, or cut by its edge.

export const COLUMNS = 16;
export const ROWS = 9;
const EDGE = 0.015;
const GOOD_KEYPOINTS = 12;
const SMALL_BODY = 0.2;
const ENOUGH_POSES = 60;
const HEAD = [0, 1, 2, 3, 4];
const [SHOULDERS, HIPS, KNEES, ANKLES] = [[5, 6], [11, 12], [13, 14], [15, 16]];
// Lengths of a standing person: neck and head, and legs, by the torso; and shin by thigh.
const HEAD_BY_TORSO = 0.5;
const LEGS_BY_TORSO = 1.5;
const SHIN_BY_THIGH = 1;

const missing = (pose, indices) => indices.every((index) => !pose.keypoints[index]);

// The mean y of the visible ones, NaN without any: then every comparison is false.
function height(pose, indices) {
  const visible = indices.map((index) => pose.keypoints[index]).filter(Boolean);
  return visible.reduce((sum, [, y]) => sum + y, 0) / visible.length;
}

// What is cut off has no keypoints, and the box ends at the last visible one: whether it would be
// outside of the frame follows from what is above or below it.
function areFeetCut(pose) {
  if (!missing(pose, ANKLES)) return false;
  const [shoulders, hips, knees] = [SHOULDERS, HIPS, KNEES].map((pair) => height(pose, pair));
  return pose.box[3] >= 1 - EDGE
    || knees + SHIN_BY_THIGH * Math.max(0, knees - hips) > 1
    || (missing(pose, KNEES) && hips + LEGS_BY_TORSO * Math.max(0, hips - shoulders) > 1);
}

function isHeadCut(pose) {
  if (!missing(pose, HEAD)) return false;
  const [shoulders, hips] = [SHOULDERS, HIPS].map((pair) => height(pose, pair));
  return pose.box[1] <= EDGE || shoulders - HEAD_BY_TORSO * Math.max(0, hips - shoulders) < 0;
}

function kindOf(pose) {
  const [left, top, right, bottom] = pose.box;
  const touches = left <= EDGE || top <= EDGE || right >= 1 - EDGE || bottom >= 1 - EDGE;
  if (touches || areFeetCut(pose) || isHeadCut(pose)) return "cut";
  const visible = pose.keypoints.filter(Boolean).length;
  return visible >= GOOD_KEYPOINTS ? "well" : "badly";
}

export class Coverage {
  constructor() {
    this.forget();
  }

  forget() {
    this.poses = 0;
    this.feetCut = this.headCut = this.small = this.weak = 0;
    this.thirds = [0, 0, 0];
    this.counts = Array.from({ length: COLUMNS * ROWS }, () => ({ well: 0, badly: 0, cut: 0 }));
  }

  add(pose) {
    const [left, top, right, bottom] = pose.box;
    const kind = kindOf(pose);
    this.poses += 1;
    this.feetCut += areFeetCut(pose);
    this.headCut += isHeadCut(pose);
    this.small += bottom - top < SMALL_BODY;
    this.weak += kind === "badly";
    this.thirds[Math.min(2, Math.floor(((left + right) / 2) * 3))] += 1;
    const clamp = (value, size) => Math.min(size - 1, Math.max(0, Math.floor(value * size)));
    for (let row = clamp(top, ROWS); row <= clamp(bottom, ROWS); row += 1) {
      for (let column = clamp(left, COLUMNS); column <= clamp(right, COLUMNS); column += 1) {
        this.counts[row * COLUMNS + column][kind] += 1;
      }
    }
  }

  // The most frequent kind of each field, undefined where no body was.
  get cells() {
    return this.counts.map((count) => {
      const [kind, number] = Object.entries(count).sort((a, b) => b[1] - a[1])[0];
      return number ? kind : undefined;
    });
  }

  get advice() {
    if (this.poses < ENOUGH_POSES) {
      return [this.poses ? "Keep walking: too few poses so far." : "No pose yet."];
    }
    const share = (count) => Math.round((100 * count) / this.poses);
    const found = [];
    if (share(this.feetCut) >= 15) {
      found.push(`The feet are cut off in ${share(this.feetCut)} % of the poses: tilt the camera down, or move it back.`);
    }
    if (share(this.headCut) >= 15) {
      found.push(`The head is cut off in ${share(this.headCut)} % of the poses: tilt the camera up, or move it back.`);
    }
    if (share(this.small) >= 40) {
      found.push("People are small in the frame: move the camera closer.");
    }
    if (share(this.weak) >= 40) {
      found.push("Many bodies are found badly: more light, or a view less steep from above, helps.");
    }
    ["left", "middle", "right"].forEach((name, index) => {
      if (!this.thirds[index]) found.push(`Nobody was found in the ${name} third.`);
    });
    return found.length ? found : ["Bodies are found well wherever you walked."];
  }
}
