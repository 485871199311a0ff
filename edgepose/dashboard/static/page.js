// Receives what the broker sends, and shows each node and camera.

import { clone, Panel, parsed } from "./panel.js";

const RECONNECT_MS = 1000;
const NODE_TOPICS = new Set(["availability", "info", "stats", "accelerator"]);

const nodes = new Map();
let socket = null;

class Node {
  constructor(name) {
    this.name = name;
    this.availability = "offline";
    this.info = {};
    this.stats = {};
    this.accelerator = {};
    this.zones = {};
    this.edges = null;
    this.panels = new Map();
    this.element = clone("node");
    this.element.querySelector("h2").textContent = name;
    const after = [...document.querySelectorAll(".node")].find((other) => other.dataset.name > name);
    this.element.dataset.name = name;
    document.getElementById("nodes").insertBefore(this.element, after || null);
    document.getElementById("empty").hidden = true;
  }

  receive(topic, payload) {
    if (topic === "availability") this.availability = payload;
    else if (topic === "info") {
      this.info = parsed(payload);
      this.zones = this.info.zones || {};
      this.edges = this.info.skeleton || null;
    } else this[topic] = parsed(payload);
    for (const [name, panel] of this.panels) {
      panel.stats = (this.stats.cameras || {})[name] || {};
    }
    this.show();
  }

  panel(name) {
    let panel = this.panels.get(name);
    if (!panel) {
      panel = new Panel(this, name, (...command) => send(this.name, ...command));
      this.panels.set(name, panel);
      const cameras = this.element.querySelector(".cameras");
      const after = [...cameras.children].find((other) => other.dataset.camera > name);
      cameras.insertBefore(panel.element, after || null);
      panel.show();
    }
    return panel;
  }

  show() {
    for (const panel of this.panels.values()) panel.show();
    const find = (selector) => this.element.querySelector(selector);
    this.element.dataset.state = this.availability;
    const state = find(".state");
    state.dataset.state = this.availability;
    state.textContent = this.availability;
    const { accelerator, info, stats } = this;
    const temperatures = Object.values(stats.temperatures_c || {});
    const words = [
      info.device,
      info.version && `edgepose ${info.version}`,
      accelerator.model && `${accelerator.model} on the ${accelerator.device}`,
      temperatures.length && `${Math.max(...temperatures).toFixed(0)} °C`,
    ];
    find(".machine").textContent = words.filter(Boolean).join(" · ");
    const problems = [
      accelerator.degraded && `degraded: ${accelerator.reason || "the accelerator is not available"}`,
      (stats.throttling || []).some((flag) => !flag.endsWith("_occurred"))
        && `throttled: ${stats.throttling.join(", ").replaceAll("_", " ")}`,
    ].filter(Boolean);
    const problem = find(".problem");
    problem.hidden = !problems.length || this.availability !== "online";
    problem.textContent = problems.join("; ");
  }
}

function send(node, camera, name, value) {
  if (socket && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify({ node, camera, name, value }));
  }
}

function receive(topic, payload) {
  const [name, first, ...rest] = topic.split("/");
  if (!first || topic.endsWith("/set")) return;
  let node = nodes.get(name);
  if (!payload && !node) return;
  if (!node) {
    node = new Node(name);
    nodes.set(name, node);
  }
  if (!rest.length && NODE_TOPICS.has(first)) node.receive(first, payload);
  else if (rest.length) node.panel(first).receive(rest.join("/"), payload);
}

function showConnection(state) {
  const connected = state === "connected";
  document.body.dataset.connection = connected ? "connected" : "lost";
  document.getElementById("connection").textContent = connected
    ? "connected to the broker"
    : state.replace(/^lost /, "");
  for (const node of nodes.values()) {
    // What the broker knows of it follows; of a node that has ended meanwhile it may be nothing.
    if (connected) node.availability = "offline";
    node.show();
  }
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/messages`);
  socket.addEventListener("message", ({ data }) => {
    const end = data.indexOf("\n");
    const [topic, payload] = [data.slice(0, end), data.slice(end + 1)];
    try {
      if (topic) receive(topic, payload);
      else showConnection(payload);
    } catch (error) {
      // One invalid message of another program must not end the page.
      console.warn(topic, error);
    }
  });
  socket.addEventListener("close", () => {
    showConnection("the server of this page does not answer");
    setTimeout(connect, RECONNECT_MS);
  });
}

connect();
setInterval(() => {
  for (const node of nodes.values()) for (const panel of node.panels.values()) panel.tick();
}, 1000);
