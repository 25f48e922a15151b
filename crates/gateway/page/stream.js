// What the page knows: graphs of the time that was chosen, and the last picture. Live seconds come as
// server-sent events; longer spans are asked for again when one of their slots is over.

export const SPANS = [
  { name: "10m", words: "10 minutes", seconds: 600 },
  { name: "2h", words: "2 hours", seconds: 7200 },
  { name: "24h", words: "24 hours", seconds: 86400 },
];

// Without a word for so long the connection counts as lost: one comes every second.
const SILENCE_MS = 4500;
const AGAIN_MS = 2000;

const COLUMNS = ["requests", "refused", "errors", "p50", "p90", "p99"];
const keyOf = (endpoint) => `${endpoint.method} ${endpoint.route}`;

// The graphs of one span, by second; what is missing in between was counted by nobody.
export class Graphs {
  constructor(seconds) {
    this.seconds = seconds;
    this.step = 1;
    this.slots = new Map();
    this.last = 0;
  }

  take(view) {
    this.step = view.step;
    view.at.forEach((at, index) => {
      const slot = { total: pick(view.total, index), endpoints: new Map(), nodes: new Map(), protocols: {} };
      for (const endpoint of view.endpoints) {
        if (endpoint.requests[index]) slot.endpoints.set(keyOf(endpoint), pick(endpoint, index));
      }
      for (const node of view.nodes) {
        slot.nodes.set(node.name, { requests: node.requests[index], failed: node.failed[index] });
      }
      for (const [version, counts] of Object.entries(view.protocols)) slot.protocols[version] = counts[index];
      this.slots.set(at, slot);
      this.last = Math.max(this.last, at);
    });
    for (const at of this.slots.keys()) {
      if (at <= this.last - this.seconds) this.slots.delete(at);
    }
  }

  // Seconds of all slots up to now, those without a count included, and a value of each or null.
  times() {
    const first = Math.min(...this.slots.keys());
    const times = [];
    if (this.slots.size === 0) return times;
    for (let at = first; at <= this.last; at += this.step) times.push(at);
    return times;
  }

  column(of) {
    return this.times().map((at) => {
      const slot = this.slots.get(at);
      return slot ? of(slot) : null;
    });
  }

  // Names of endpoints with a request in the span.
  endpoints() {
    const names = new Set();
    for (const slot of this.slots.values()) for (const name of slot.endpoints.keys()) names.add(name);
    return [...names].sort(byRoute);
  }

  names(of) {
    const names = new Set();
    for (const slot of this.slots.values()) for (const name of of(slot)) names.add(name);
    return [...names].sort();
  }
}

// Endpoints of one route stand together; what no route names comes last.
export function byRoute(one, other) {
  const [[method, route], [method2, route2]] = [one.split(" "), other.split(" ")];
  if ((route === "other") !== (route2 === "other")) return route === "other" ? 1 : -1;
  return route < route2 ? -1 : route > route2 ? 1 : method < method2 ? -1 : 1;
}

function pick(columns, index) {
  return Object.fromEntries(COLUMNS.map((name) => [name, columns[name][index]]));
}

// Follows one of the gateways. `on`: {seconds(view), picture(picture), lost(), back()}.
export class Stream {
  constructor(on) {
    this.on = on;
    this.after = 0;
    this.heard = Date.now();
    this.isLost = false;
    this.open();
    setInterval(() => this.check(), 1000);
  }

  open() {
    this.source?.close();
    this.source = new EventSource(`/api/v1/live?after=${this.after}`);
    this.opened = Date.now();
    this.source.addEventListener("seconds", (event) => {
      const view = JSON.parse(event.data);
      this.after = Math.max(this.after, ...view.at.slice(-1));
      this.on.seconds(view);
    });
    this.source.addEventListener("picture", (event) => {
      this.heard = Date.now();
      if (this.isLost) {
        this.isLost = false;
        this.on.back();
      }
      this.on.picture(JSON.parse(event.data));
    });
  }

  check() {
    const silent = Date.now() - this.heard;
    if (silent < SILENCE_MS) return;
    if (!this.isLost) {
      this.isLost = true;
      this.on.lost();
    }
    // Another gateway may answer a new connection.
    if (Date.now() - this.opened > SILENCE_MS + AGAIN_MS || this.source.readyState === EventSource.CLOSED) {
      this.open();
    }
  }
}

export async function history(span) {
  const answer = await fetch(`/api/v1/history?span=${span}`);
  if (!answer.ok) throw new Error(`the history is not there: ${answer.status}`);
  return answer.json();
}
