// What the page knows: graphs of the time that was chosen, and the last picture. Live seconds come as
// server-sent events or are asked for; longer spans are asked for again when one of their slots is over.

export const SPANS = [
  { name: "10m", words: "10 minutes", seconds: 600 },
  { name: "2h", words: "2 hours", seconds: 7200 },
  { name: "24h", words: "24 hours", seconds: 86400 },
];

// Without a word for so long the connection counts as lost: one comes every second.
const SILENCE_MS = 4500;
const AGAIN_MS = 2000;
// A day of every endpoint is megabytes.
const HISTORY_MS = 30_000;
// How often a page without a stream asks.
const POLL_MS = 2000;
// A gateway that refused a stream is not asked for one again for so long.
const REFUSED_MS = 15_000;
// Tabs of one browser that have a stream; the others, and all else that they load, share what is left.
const STREAMS_MAX = 3;

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

// Follows one of the gateways. `on`: {seconds(view), picture(picture), lost(), back(), means(words)}.
//
// A stream of events holds a connection for as long as it is open, of which a browser has six for a
// gateway, all its tabs together, and a gateway has a few for all. So hidden tabs have none, and of the
// others STREAMS_MAX; whoever has none asks again and again, which shows the same a moment later.
export class Live {
  constructor(on) {
    this.on = on;
    this.after = 0;
    this.heard = Date.now();
    this.isLost = false;
    // What the stream is given back with, while this tab has one.
    this.leave = null;
    this.refused = 0;
    this.polled = 0;
    document.addEventListener("visibilitychange", () => this.choose());
    setInterval(() => this.check(), 1000);
    this.choose();
  }

  // A stream where there may be one, else polling.
  async choose() {
    if (document.hidden && this.leave) this.close();
    if (document.hidden || this.leave || this.choosing || Date.now() - this.refused < REFUSED_MS) return;
    this.choosing = true;
    this.leave = await place();
    this.choosing = false;
    if (this.leave && document.hidden) this.close();
    else if (this.leave) this.open();
    else if (!this.polled) this.poll();
  }

  open() {
    this.source?.close();
    this.source = new EventSource(`/api/v1/live?after=${this.after}`);
    this.opened = Date.now();
    this.source.addEventListener("seconds", (event) => this.seconds(JSON.parse(event.data)));
    this.source.addEventListener("picture", (event) => {
      this.on.means("stream");
      this.picture(JSON.parse(event.data));
    });
    this.source.addEventListener("error", () => {
      // Answered, but not with a stream: a connection that broke is made again by the browser.
      if (this.source?.readyState !== EventSource.CLOSED) return;
      this.refused = Date.now();
      this.close();
    });
  }

  // From now on this tab polls.
  close() {
    this.source?.close();
    this.source = null;
    this.leave?.();
    this.leave = null;
    this.poll();
  }

  seconds(view) {
    this.after = Math.max(this.after, ...view.at.slice(-1));
    this.on.seconds(view);
  }

  picture(picture) {
    this.heard = Date.now();
    if (this.isLost) {
      this.isLost = false;
      this.on.back();
    }
    this.on.picture(picture);
  }

  async poll() {
    if (this.polling || this.leave) return;
    this.polling = true;
    const told = await this.ask();
    this.polling = false;
    this.polled = Date.now();
    // The stream may have come first.
    if (!told || this.leave) return;
    this.on.means("polling");
    this.seconds(told.view);
    this.picture(told.picture);
  }

  async ask() {
    try {
      const view = await get(`/api/v1/history?span=10m&after=${this.after}`, SILENCE_MS);
      return { view, picture: await get("/api/v1/picture", SILENCE_MS) };
    } catch {
      // In a hidden tab a minute may pass between two looks: only a failure says that nobody answers.
      if (!this.leave && Date.now() - this.heard > SILENCE_MS) this.lose();
      return null;
    }
  }

  lose() {
    if (!this.isLost) this.on.lost();
    this.isLost = true;
  }

  check() {
    if (!this.leave) {
      if (Date.now() - this.polled >= POLL_MS) this.poll();
      this.choose();
      return;
    }
    if (Date.now() - Math.max(this.heard, this.opened) < SILENCE_MS) return;
    this.lose();
    // Another gateway may answer a new connection.
    if (Date.now() - this.opened > SILENCE_MS + AGAIN_MS) this.open();
  }
}

// The right to a stream, as the function that gives it back; null where this browser has enough of
// them, or cannot say (the locks of a page are there on localhost and over TLS alone).
async function place() {
  if (!navigator.locks) return null;
  for (let number = 1; number <= STREAMS_MAX; number += 1) {
    const leave = await new Promise((resolve) => {
      navigator.locks.request(`bingo live ${number}`, { ifAvailable: true }, (lock) => {
        if (!lock) return resolve(null);
        return new Promise((release) => resolve(release));
      }).catch(() => resolve(null));
    });
    if (leave) return leave;
  }
  return null;
}

async function get(path, timeout) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(timeout) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// All of a span.
export function history(span) {
  return get(`/api/v1/history?span=${span}`, HISTORY_MS);
}
