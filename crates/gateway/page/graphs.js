// The four large graphs. A graph always spans the whole time that was chosen, up to now: what was not
// counted is left blank and said in words. Each has its figures as a table as well, for those who
// cannot see it.

import { latency, time } from "./format.js";

const HEIGHT = 175;

// Times of day below a graph, as short as they can be told apart.
function clocks(ats) {
  const seconds = ats.length > 1 && ats[1] - ats[0] < 60;
  const parts = { hour: "2-digit", minute: "2-digit", hour12: false, ...(seconds && { second: "2-digit" }) };
  return ats.map((at) => new Date(at * 1000).toLocaleTimeString([], parts));
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Graph {
  // `unit(value)`: a value in words.
  constructor(id, unit) {
    this.figure = document.getElementById(id);
    this.unit = unit;
    this.place = document.createElement("div");
    this.place.setAttribute("role", "img");
    this.empty = document.createElement("p");
    this.empty.className = "empty";
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    summary.textContent = "As a table";
    this.table = document.createElement("table");
    details.append(summary, this.table);
    details.addEventListener("toggle", () => this.fillTable());
    this.details = details;
    this.figure.append(this.place, this.empty, details);
    this.plot = null;
    this.shape = "";
    new ResizeObserver(() => this.fit()).observe(this.figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.shape = "";
    });
  }

  fit() {
    const width = this.figure.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  // `series`: [{name, colour, values}], `from` and `to` in seconds, `empty`: words or "".
  show(times, series, from, to, empty) {
    this.data = { times, series };
    const shape = JSON.stringify(series.map((one) => [one.name, one.colour]));
    if (shape !== this.shape) this.make(series, shape);
    this.range = [from, to];
    this.plot.setData([times, ...series.map((one) => one.values)]);
    if (this.empty.textContent !== empty) this.empty.textContent = empty;
    const latest = series.map((one) => `${one.name} ${this.words(one.values.at(-1))}`);
    const words = empty || `now: ${latest.join(", ")}`;
    this.place.setAttribute("aria-label", `${this.figure.querySelector("figcaption").textContent}: ${words}`);
    if (this.details.open) this.fillTable();
  }

  words(value) {
    return value === null || value === undefined ? "not known" : this.unit(value);
  }

  make(series, shape) {
    this.shape = shape;
    this.plot?.destroy();
    const quiet = colour("--quiet");
    const axis = { stroke: quiet, grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
    const options = {
      width: Math.max(this.figure.clientWidth, 200),
      height: HEIGHT,
      cursor: { sync: { key: "traffic" }, drag: { x: false, y: false } },
      scales: {
        x: { time: true, range: () => this.range },
        y: { range: (plot, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [{ ...axis, size: 28, values: (plot, ats) => clocks(ats) }, { ...axis, size: 52 }],
      series: [
        { label: "at", value: (plot, at) => (at === null || at === undefined ? "now" : time(at)) },
        ...series.map((one) => ({
          label: one.name,
          stroke: colour(one.colour),
          width: 2,
          points: { show: (plot, index, first, last) => first === last },
          // Without a pointer on the graph: the latest.
          value: (plot, value, index, at) => (at === null || at === undefined
            ? this.words(this.data.series[index - 1]?.values.at(-1)) : this.words(value)),
        })),
      ],
    };
    this.range = [0, 1];
    this.plot = new window.uPlot(options, [[], ...series.map(() => [])], this.place);
  }

  fillTable() {
    const { times, series } = this.data ?? { times: [], series: [] };
    const rows = times.map((at, index) => [time(at), ...series.map((one) => this.words(one.values[index]))]);
    const head = ["at", ...series.map((one) => one.name)];
    const row = (cells, kind) => {
      const line = document.createElement("tr");
      for (const text of cells) {
        const cell = document.createElement(kind);
        cell.textContent = text;
        line.append(cell);
      }
      return line;
    };
    const lately = rows.slice(-20).reverse();
    this.table.replaceChildren(row(head, "th"), ...lately.map((cells) => row(cells, "td")));
  }
}

const PALETTE = ["--c1", "--c2", "--c3", "--c4", "--c5"];
const rate = (value) => value.toFixed(value < 10 ? 2 : 0);

export class Board {
  constructor() {
    this.rate = new Graph("graph-rate", rate);
    this.latency = new Graph("graph-latency", (ms) => latency(ms / 1000));
    this.nodes = new Graph("graph-nodes", rate);
    this.protocols = new Graph("graph-protocols", rate);
  }

  // `endpoint`: a name, or "" for all; `now` in seconds.
  show(graphs, endpoint, now, words) {
    const times = graphs.times();
    const [from, to] = [now - graphs.seconds, now];
    const nothing = { requests: 0, errors: 0, p50: null, p90: null, p99: null };
    const of = (slot) => (endpoint ? slot.endpoints.get(endpoint) ?? nothing : slot.total);
    const perSecond = (pick) => graphs.column((slot) => pick(slot) / graphs.step);
    const any = [...graphs.slots.values()].some((slot) => of(slot).requests > 0);
    const none = times.length === 0
      ? "Nothing was counted yet"
      : any ? "" : `No requests in the last ${words}`;
    this.rate.show(times, [
      { name: "requests", colour: "--c1", values: perSecond((slot) => of(slot).requests) },
      { name: "errors", colour: "--error", values: perSecond((slot) => of(slot).errors) },
    ], from, to, none);
    const quantile = (name) => graphs.column((slot) => (of(slot)[name] === null ? null : of(slot)[name] * 1000));
    this.latency.show(times, [
      { name: "p50", colour: "--c3", values: quantile("p50") },
      { name: "p90", colour: "--c1", values: quantile("p90") },
      { name: "p99", colour: "--c2", values: quantile("p99") },
    ], from, to, none);
    const nodes = graphs.names((slot) => slot.nodes.keys());
    this.nodes.show(times, nodes.map((name, index) => ({
      name, colour: PALETTE[index % PALETTE.length],
      values: perSecond((slot) => slot.nodes.get(name)?.requests ?? 0),
    })), from, to, nodes.length ? "" : `No node was sent a request in the last ${words}`);
    const versions = ["1.1", "2", "3"];
    this.protocols.show(times, versions.map((version, index) => ({
      name: `HTTP/${version}`, colour: PALETTE[index],
      values: perSecond((slot) => slot.protocols[version] + (version === "1.1" ? slot.protocols["1.0"] : 0)),
    })), from, to, times.length ? "" : "Nothing was counted yet");
  }
}
