// What there is beside traffic: nodes, gateways, database hosts, processes, machines, reserves,
// quarantine and events; each with its state in a word, since when, and why.

import { bytes, percent, perSecond, plural, time, UNKNOWN } from "./format.js";
import { Table } from "./table.js";

const KINDS = {
  healthy: "good", answers: "good", primary: "good", replica: "good", done: "good",
  ejected: "bad", silent: "bad", away: "bad", unhealthy: "bad", failed: "bad", stopped: "bad",
  draining: "warning", maintenance: "warning", starting: "warning", unknown: "unknown",
};
const state = (word) => ({ text: word || UNKNOWN, badge: KINDS[word] ?? "unknown" });

// Who of the others sees it otherwise, in words.
function others(item) {
  const said = Object.entries(item.others_say ?? {});
  return said.map(([who, word]) => `${who} says ${word}`).join(", ");
}
const join = (...words) => words.filter(Boolean).join("; ");

export class Fleet {
  constructor(changes) {
    const since = { head: "Since", label: "since", kind: "time", cell: (item) => time(item.since) };
    this.nodes = new Table("nodes", [
      { head: "Node", cell: (item) => item.name },
      { head: "State", cell: (item) => state(item.state) },
      since,
      { head: "Why", kind: "words whole", cell: (item) => join(item.reason, others(item)) },
      { head: "In flight", label: "in flight", kind: "number", cell: (item) => item.in_flight },
      { head: "Requests/s", label: "req/s", kind: "number", cell: (item) => item.rate },
      { head: "Failed", label: "failed", kind: "number",
        cell: (item) => ({ text: item.failed, kind: item.anyFailed ? "bad" : "" }) },
      { head: "Change", kind: "acts whole", make: (item) => changes.switches(item), show: (element, item) => changes.show(element, item) },
    ], "The configuration names no node.");
    this.gateways = new Table("gateways", [
      { head: "Gateway", cell: (item) => item.name },
      { head: "State", cell: (item) => state(item.state) },
      since,
      { head: "Requests open", label: "open", kind: "number", cell: (item) => item.active_requests ?? UNKNOWN },
      { head: "Connections", label: "connections", kind: "number", cell: (item) => item.connections ?? UNKNOWN },
      { head: "Why", kind: "words whole", cell: (item) => item.reason ?? "" },
    ], "No gateway is known.");
    this.databases = new Table("databases", [
      { head: "Host", cell: (item) => item.host },
      { head: "Role", cell: (item) => state(item.role) },
      since,
      { head: "Lag", label: "lag", kind: "number", cell: (item) => seconds(item.lag_seconds) },
      { head: "Round trip", label: "round trip", kind: "number", cell: (item) => seconds(item.round_trip_seconds) },
      { head: "Busy", label: "busy", kind: "number", cell: (item) => item.busy_connections },
      { head: "Waiting", label: "waiting", kind: "number", cell: (item) => item.waiting },
      { head: "Why", kind: "words whole", cell: (item) => others(item) },
    ], "");
    this.processes = new Table("processes", [
      { head: "Process", cell: (item) => item.name },
      { head: "State", cell: (item) => state(item.state) },
      since,
      { head: "Pid", label: "pid", kind: "number", cell: (item) => item.pid ?? "–" },
      { head: "Memory", label: "memory", kind: "number", cell: (item) => (item.pid ? bytes(item.rss_bytes) : "–") },
      { head: "Restarts", label: "restarts", kind: "number", cell: (item) => item.restarts ?? 0 },
      { head: "Last restart", kind: "words whole", cell: (item) => join(item.reason, item.last_restart_reason) },
    ], "");
    this.hosts = new Table("hosts", [
      { head: "Machine", cell: (item) => item.name },
      { head: "Processors busy", label: "processors", kind: "number",
        cell: (item) => (item.busy_percent === null ? UNKNOWN : `${item.busy_percent.toFixed(0)} % of ${item.processors}`) },
      { head: "Memory used", label: "memory", kind: "number", cell: (item) => used(item.memory_bytes, item.memory_available_bytes) },
      { head: "Disk used", label: "disk", kind: "number", cell: (item) => used(item.disk_bytes, item.disk_available_bytes) },
    ], "Nothing is known of any machine.");
    this.quarantine = new Table("quarantine", [
      { head: "Request", kind: "words whole", cell: (item) => `${item.method} ${item.target}` },
      { head: "Verdict", cell: (item) => ({ text: item.verdict, badge: item.verdict === "convicted" ? "bad" : "warning" }) },
      { head: "Node", label: "node", cell: (item) => item.node },
      { head: "Why", label: "why", cell: (item) => item.reason },
      { head: "Until", label: "until", kind: "time", cell: (item) => (item.until ? time(item.until) : "its trial") },
      { head: "Change", kind: "acts whole", make: (item) => changes.lifter(item), show: (element) => changes.show(element) },
    ], "No request is suspected or convicted.");
    this.events = new Table("events", [
      { head: "At", kind: "time", cell: (item) => time(item.at) },
      { head: "What", cell: (item) => ({ text: item.kind, kind: WORDS[item.kind] ?? "" }) },
      { head: "Whom", cell: (item) => item.subject },
      { head: "Why", kind: "words whole", cell: (item) => item.reason },
      { head: "Told by", label: "by", cell: (item) => item.source },
    ], "Nothing has happened yet.");
  }

  show(picture, graphs) {
    const lately = [...graphs.slots.keys()].sort((one, other) => one - other).slice(-10).map((at) => graphs.slots.get(at));
    const covered = Math.max(1, lately.length * graphs.step);
    const nodes = picture.nodes.map((node) => {
      const sum = (key) => lately.reduce((all, slot) => all + (slot.nodes.get(node.name)?.[key] ?? 0), 0);
      const [requests, failed] = [sum("requests"), sum("failed")];
      return { ...node, rate: perSecond(requests, covered), failed: percent(failed, requests), anyFailed: failed > 0 };
    });
    this.nodes.show(nodes, (item) => item.name);
    this.gateways.show(picture.gateways, (item) => item.name + (item.run ?? ""));
    const nobody = picture.processes.unknown
      ? "Unknown: this gateway does not know where nodes tell of their databases."
      : "Unknown: no node that answers tells of a database.";
    this.databases.show(picture.databases, (item) => item.host, nobody);
    const unknown = picture.processes.unknown;
    this.processes.show(picture.processes.list ?? [], (item) => item.name, unknown ? `Unknown: ${unknown}` : "None.");
    this.hosts.show(picture.hosts, (item) => item.name);
    const { convicted, suspected } = picture.quarantine;
    const charged = [
      ...convicted.map((item) => ({ ...item, verdict: "convicted" })),
      ...suspected.map((item) => ({ ...item, verdict: "suspected" })),
    ];
    this.quarantine.show(charged, (item) => item.fingerprint + item.verdict);
    const events = [...picture.events].reverse();
    const seen = new Map();
    for (const item of events) {
      const name = `${item.at} ${item.source} ${item.kind} ${item.subject}`;
      const times = seen.get(name) ?? 0;
      seen.set(name, times + 1);
      item.key = `${name} ${times}`;
    }
    this.events.show(events, (item) => item.key);
    reserves(picture);
  }
}

const WORDS = {
  killed: "bad", exited: "bad", ejected: "bad", unhealthy: "bad", failed: "bad", convicted: "bad",
  database_away: "bad", refused: "bad", lost: "bad", suspect: "warning", set: "warning",
  back: "good", healthy: "good", database_back: "good", lifted: "good", promoted: "warning",
};

const seconds = (value) => (value === null || value === undefined ? UNKNOWN : `${(value * 1000).toFixed(1)} ms`);
const used = (all, free) => (all === null || free === null ? UNKNOWN : `${percent(all - free, all)} of ${bytes(all)}`);

export function tiles(id, items) {
  const list = document.getElementById(id);
  if (list.children.length !== items.length) {
    list.replaceChildren(...items.map(() => {
      const tile = document.createElement("div");
      tile.append(document.createElement("dt"), document.createElement("dd"));
      return tile;
    }));
  }
  items.forEach(({ name, text, small = "", kind = "" }, index) => {
    const [head, value] = list.children[index].children;
    head.textContent = name;
    value.className = kind;
    const rest = document.createElement("small");
    rest.textContent = small ? ` ${small}` : "";
    value.replaceChildren(document.createTextNode(text), rest);
  });
}

function reserves(picture) {
  const { cache, budgets } = picture;
  const asked = cache.hits + cache.misses;
  const budget = (one) => ({
    text: `${percent(one.used_per_second, one.per_second_max)} used`,
    small: `${one.used_per_second.toFixed(1)} of ${one.per_second_max.toFixed(0)} a second`,
    kind: one.used_per_second > one.per_second_max * 0.8 ? "bad" : "",
  });
  tiles("reserves", [
    { name: "Answered by the cache", text: asked ? percent(cache.hits, asked) : "nothing asked",
      small: `${plural(cache.entries, "answer", "answers")}, ${bytes(cache.bytes)}` },
    { name: "Retry budget", ...budget(budgets.retry) },
    { name: "Hedge budget", ...budget(budgets.hedge) },
    { name: "Held / shed", text: `${picture.held} / ${picture.sheds}`, small: "now / in 10 s",
      kind: picture.sheds ? "bad" : "" },
  ]);
}
