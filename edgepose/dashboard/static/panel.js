// The panel of one camera.

import { COLUMNS, Coverage, ROWS } from "./aiming.js";
import {
  drawCoverage, drawDraft, drawPose, drawTrail, drawZones, prepare,
} from "./drawing.js";

const STALE_MS = 3000;
const TRAIL_MS = 3000;
const MAX_EVENTS = 30;
const STEP = 0.02;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STATES = {
  online: "online",
  stalled: "stalled: no frames",
  offline: "offline",
  off: "switched off",
};

export function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

// A topic may have been written by another program.
export function parsed(payload) {
  try {
    return JSON.parse(payload) || {};
  } catch {
    return {};
  }
}

function place(pose) {
  const [left, , right, bottom] = pose.box;
  return [(left + right) / 2, bottom];
}

export class Panel {
  constructor(node, name, command) {
    this.node = node;
    this.name = name;
    this.command = command;
    this.states = {};
    this.stats = {};
    this.message = null;
    this.receivedAt = 0;
    this.frames = [];
    this.trails = new Map();
    this.coverage = new Coverage();
    this.walking = false;
    this.corners = [];
    this.cross = null;
    this.scheduled = false;
    this.width = 0;
    this.facts = "";
    this.build();
  }

  build() {
    const element = clone("camera");
    this.element = element;
    this.find = (selector) => element.querySelector(selector);
    element.dataset.node = this.node.name;
    element.dataset.camera = this.name;
    element.setAttribute("aria-label", `camera ${this.name} of ${this.node.name}`);
    this.find("h3").textContent = this.name;
    this.canvas = this.find("canvas");
    this.canvas.setAttribute("role", "img");
    this.showPoses(0);
    this.find(".privacy").addEventListener("click", () => this.switch());
    this.find(".walk").addEventListener("click", () => this.walk(!this.walking));
    this.find(".forget").addEventListener("click", () => {
      this.coverage.forget();
      this.showAdvice();
      this.schedule();
    });
    this.find(".aiming").addEventListener("toggle", () => this.schedule());
    this.buildZoning();
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      this.schedule();
    }).observe(this.canvas);
    this.show();
  }

  buildZoning() {
    const zoning = this.find(".zoning");
    const add = (x, y) => {
      const round = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;
      this.corners.push([round(x), round(y)]);
      this.showZone();
    };
    zoning.addEventListener("toggle", () => {
      this.cross = null;
      this.element.classList.toggle("drawing", zoning.open);
      if (zoning.open) this.canvas.tabIndex = 0;
      else this.canvas.removeAttribute("tabindex");
      this.showZone();
    });
    this.canvas.addEventListener("click", (event) => {
      if (!zoning.open) return;
      const area = this.canvas.getBoundingClientRect();
      add((event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height);
    });
    this.canvas.addEventListener("keydown", (event) => {
      if (!zoning.open) return;
      const arrow = ARROWS[event.key];
      this.cross = this.cross || [0.5, 0.5];
      if (arrow) {
        this.cross = this.cross.map((value, axis) =>
          Math.min(1, Math.max(0, value + STEP * arrow[axis])));
      } else if (event.key === "Enter") add(...this.cross);
      else if (event.key === "Backspace") this.corners.pop();
      else return;
      event.preventDefault();
      this.showZone();
    });
    this.find(".undo").addEventListener("click", () => {
      this.corners.pop();
      this.showZone();
    });
    this.find(".clear").addEventListener("click", () => {
      this.corners = [];
      this.showZone();
    });
    this.find(".name").addEventListener("input", () => this.showZone());
  }

  // What a message on a topic of this camera changes.
  receive(topic, payload) {
    if (topic === "poses") this.receivePoses(payload);
    else if (topic === "event") this.receiveEvent(payload);
    else {
      if (payload) this.states[topic] = payload;
      else delete this.states[topic];
      this.show();
    }
  }

  receivePoses(payload) {
    const message = JSON.parse(payload);
    const now = performance.now();
    this.frames = [...this.frames.filter((time) => now - time < 2000), now];
    for (const pose of message.poses) {
      const trail = this.trails.get(pose.id) || [];
      trail.push({ at: now, point: place(pose) });
      this.trails.set(pose.id, trail);
      if (this.walking) this.coverage.add(pose);
    }
    this.message = message;
    this.receivedAt = now;
    for (const [id, trail] of this.trails) {
      const recent = trail.filter(({ at }) => now - at < TRAIL_MS);
      if (recent.length) this.trails.set(id, recent);
      else this.trails.delete(id);
    }
    this.schedule();
  }

  receiveEvent(payload) {
    const event = JSON.parse(payload);
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.dateTime = event.time;
    time.textContent = new Date(event.time).toLocaleTimeString();
    const words = [event.type.replace("_", " "), event.zone, event.exercise, event.count];
    const text = [...words.filter((word) => word != null), `(person ${event.track_id})`].join(" ");
    item.append(time, text);
    const list = this.find(".events ol");
    list.prepend(item);
    while (list.children.length > MAX_EVENTS) list.lastElementChild.remove();
  }

  get status() {
    if (this.node.availability !== "online") return "offline";
    return this.states.status || "offline";
  }

  get poses() {
    const stale = performance.now() - this.receivedAt > STALE_MS;
    return this.message && !stale && this.status !== "offline" ? this.message.poses : [];
  }

  show() {
    const { element, status } = this;
    element.dataset.status = status;
    const off = this.states.enabled === "OFF";
    const shown = off && status === "offline" && this.node.availability === "online" ? "off" : status;
    const state = this.find(".state");
    state.dataset.state = shown;
    state.textContent = STATES[shown] || shown;
    const privacy = this.find(".privacy");
    privacy.setAttribute("aria-checked", String(!off));
    privacy.disabled = this.node.availability !== "online"
      || document.body.dataset.connection === "lost";
    this.showFacts();
    this.schedule();
  }

  showFacts() {
    const { states } = this;
    const fps = this.frames.length > 1 ? this.frames.length / 2 : this.stats.fps;
    const latency = this.message
      ? Date.parse(this.message.published_at) - Date.parse(this.message.captured_at)
      : null;
    const { count, exercise } = parsed(states.repetitions);
    const zones = Object.entries(states)
      .map(([topic, payload]) => [/^zones\/(.+)\/count$/.exec(topic), payload])
      .filter(([match]) => match)
      .map(([match, payload]) => [match[1], payload]);
    const facts = [
      ["People", states.count],
      ["Presence", states.presence && (states.presence === "ON" ? "yes" : "no")],
      ["Posture", states.posture],
      ["Fall", states.fall && (states.fall === "ON" ? "suspected" : "none")],
      // The exercise is not known before the first repetition.
      ["Repetitions", exercise ? `${count} ${exercise.replace("_", "-")}` : count],
      ...zones,
      ["Frames a second", fps == null ? null : fps.toFixed(0)],
      ["Latency", latency == null ? null : `${latency.toFixed(0)} ms`],
    ];
    // What a camera that is away has published last is not what is there.
    const known = facts.filter(([, value]) => this.status === "online" && value != null);
    const text = known.join();
    if (text === this.facts) return;
    this.facts = text;
    const rows = known.map(([name, value]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      const data = document.createElement("dd");
      term.textContent = name;
      data.textContent = value;
      row.append(term, data);
      row.classList.toggle("alarm", name === "Fall" && value === "suspected");
      return row;
    });
    this.find(".facts").replaceChildren(...rows);
  }

  showAdvice() {
    const items = this.coverage.advice.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    });
    const list = this.find(".advice");
    const before = list.textContent;
    if (before !== items.map((item) => item.textContent).join("")) list.replaceChildren(...items);
  }

  showZone() {
    const name = this.find(".name").value || "zone";
    const corners = this.corners.map(([x, y]) => `[${x}, ${y}]`).join(", ");
    const text = `zones:\n  - name: ${name}\n    polygon: [${corners}]\n`;
    this.find(".zoning pre").textContent =
      this.corners.length < 3 ? "(a zone has at least three corners)" : text;
    this.schedule();
  }

  walk(on) {
    this.walking = on;
    const button = this.find(".walk");
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Stop the walk test" : "Start the walk test";
    this.showAdvice();
    this.schedule();
  }

  async switch() {
    const on = this.states.enabled !== "OFF";
    const text = on
      ? `Switch the camera ${this.name} off? It is closed, and detects nobody, until it is switched on again.`
      : `Switch the camera ${this.name} on?`;
    const dialog = document.getElementById("confirm");
    dialog.querySelector("p").textContent = text;
    dialog.querySelector(".yes").textContent = on ? "Switch off" : "Switch on";
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((resolve) => {
      dialog.addEventListener("close", resolve, { once: true });
    });
    if (dialog.returnValue === "yes") this.command(this.name, "enabled", on ? "OFF" : "ON");
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.draw();
    });
  }

  draw() {
    const frame = this.message ? this.message.frame : { width: 4, height: 3 };
    const context = prepare(this.canvas, this.width, frame);
    if (this.find(".aiming").open) drawCoverage(context, this.coverage.cells, COLUMNS, ROWS);
    drawZones(context, this.node.zones[this.name] || []);
    const { poses } = this;
    for (const pose of poses) {
      const trail = this.trails.get(pose.id) || [];
      drawTrail(context, trail.map(({ point }) => point), pose.id);
      drawPose(context, pose, this.node.edges);
    }
    if (this.find(".zoning").open) drawDraft(context, this.corners, this.cross);
    if (this.element.dataset.poses !== String(poses.length)) this.showPoses(poses.length);
  }

  showPoses(count) {
    this.element.dataset.poses = String(count);
    const people = count === 1 ? "one person" : `${count} persons`;
    this.canvas.setAttribute("aria-label", `Skeletons of camera ${this.name}: ${people}`);
  }

  // Once a second: what has become old is no longer shown.
  tick() {
    this.frames = this.frames.filter((time) => performance.now() - time < 2000);
    this.showFacts();
    if (this.walking) this.showAdvice();
    this.schedule();
  }
}
