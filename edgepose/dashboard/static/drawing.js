// Draws what one camera sees: frame, zones, coverage, trails and skeletons.

const COCO_EDGES = [
  [0, 1], [0, 2], [1, 3], [2, 4], [5, 6], [5, 7], [7, 9], [6, 8], [8, 10], [5, 11], [6, 12],
  [11, 12], [11, 13], [13, 15], [12, 14], [14, 16],
];
const GOLDEN_ANGLE = 137.5;

// Asked of the browser once for each theme: every frame needs them.
const dark = matchMedia("(prefers-color-scheme: dark)");
const tokens = new Map();
dark.addEventListener("change", () => tokens.clear());

function colourOf(id) {
  return `hsl(${(id * GOLDEN_ANGLE) % 360} 75% ${dark.matches ? 68 : 30}%)`;
}

function token(name) {
  let value = tokens.get(name);
  if (!value) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    tokens.set(name, value);
  }
  return value;
}

// Gives the canvas, `clientWidth` CSS pixels wide, the shape of the frame and the pixels of the
// screen; returns its context.
export function prepare(canvas, clientWidth, frame) {
  const shape = `${frame.width} / ${frame.height}`;
  if (canvas.style.aspectRatio !== shape) canvas.style.aspectRatio = shape;
  const scale = Math.min(devicePixelRatio || 1, 2);
  const width = Math.max(1, Math.round(clientWidth * scale));
  const height = Math.max(1, Math.round((width * frame.height) / frame.width));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.lineCap = context.lineJoin = "round";
  return context;
}

function path(context, points) {
  const { width, height } = context.canvas;
  context.beginPath();
  points.forEach(([x, y], index) => {
    context[index ? "lineTo" : "moveTo"](x * width, y * height);
  });
}

function label(context, text, x, y, colour) {
  const size = Math.max(11, context.canvas.width / 42);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  const width = context.measureText(text).width;
  const left = Math.min(Math.max(0, x), context.canvas.width - width - 6);
  const bottom = Math.max(size + 4, y);
  context.fillStyle = token("--panel");
  context.globalAlpha = 0.8;
  context.fillRect(left, bottom - size - 3, width + 6, size + 5);
  context.globalAlpha = 1;
  context.fillStyle = colour;
  context.fillText(text, left + 3, bottom);
}

export function drawZones(context, zones) {
  const colour = token("--zone");
  for (const zone of zones) {
    path(context, zone.polygon);
    context.closePath();
    context.globalAlpha = 0.14;
    context.fillStyle = colour;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.setLineDash(zone.exclude === "all" ? [6, 6] : []);
    context.stroke();
    context.setLineDash([]);
    const [x, y] = zone.polygon[0];
    label(context, zone.name, x * context.canvas.width, y * context.canvas.height, colour);
  }
}

export function drawDraft(context, corners, cross) {
  const { width, height } = context.canvas;
  context.strokeStyle = context.fillStyle = token("--zone");
  context.lineWidth = 2;
  path(context, corners);
  if (corners.length > 2) context.closePath();
  context.stroke();
  for (const [x, y] of corners) context.fillRect(x * width - 4, y * height - 4, 8, 8);
  if (cross) {
    const [x, y] = [cross[0] * width, cross[1] * height];
    context.beginPath();
    context.moveTo(x - 10, y);
    context.lineTo(x + 10, y);
    context.moveTo(x, y - 10);
    context.lineTo(x, y + 10);
    context.stroke();
  }
}

export function drawTrail(context, trail, id) {
  context.strokeStyle = colourOf(id);
  context.lineWidth = Math.max(1.5, context.canvas.width / 300);
  context.globalAlpha = 0.45;
  path(context, trail);
  context.stroke();
  context.globalAlpha = 1;
}

export function drawPose(context, pose, edges) {
  const { width, height } = context.canvas;
  const colour = colourOf(pose.id);
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = Math.max(2, width / 160);
  context.beginPath();
  for (const [start, end] of edges || COCO_EDGES) {
    const [from, to] = [pose.keypoints[start], pose.keypoints[end]];
    if (from && to) {
      context.moveTo(from[0] * width, from[1] * height);
      context.lineTo(to[0] * width, to[1] * height);
    }
  }
  context.stroke();
  const radius = Math.max(2.5, width / 130);
  context.beginPath();
  for (const keypoint of pose.keypoints) {
    if (!keypoint) continue;
    const [x, y] = [keypoint[0] * width, keypoint[1] * height];
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  }
  context.fill();
  const posture = pose.posture && pose.posture.name !== "unclear" ? ` ${pose.posture.name}` : "";
  const text = `${pose.id}${posture}`;
  label(context, text, pose.box[0] * width, pose.box[1] * height - 4, colour);
}

export function drawCoverage(context, cells, columns, rows) {
  const { width, height } = context.canvas;
  const fills = { well: "--good-fill", badly: "--warn-fill", cut: "--bad-fill" };
  // Signs, for whoever does not see the difference of the colours.
  const signs = { well: "\u2713", badly: "?", cut: "\u00d7" };
  context.font = `${Math.max(9, height / rows / 3)}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  cells.forEach((kind, index) => {
    if (!kind) return;
    const column = index % columns;
    const row = Math.floor(index / columns);
    const [left, top] = [(column * width) / columns, (row * height) / rows];
    context.fillStyle = token(fills[kind]);
    context.globalAlpha = 0.4;
    context.fillRect(left, top, width / columns, height / rows);
    context.globalAlpha = 0.8;
    context.fillText(signs[kind], left + width / columns / 2, top + height / rows / 2);
  });
  context.globalAlpha = 1;
  context.textAlign = "start";
}
