// The live page: one source, one picture, four graphs and some tables. The first line says whether
// something is wrong, the first list what and why; when the page loses its connection it says so, with
// the time of its last figures, and shows nothing as new that is old.

import { Changes } from "./changes.js";
import { Endpoints } from "./endpoints.js";
import { Fleet, tiles } from "./fleet.js";
import { latency, percent, perSecond, plural, time } from "./format.js";
import { Board } from "./graphs.js";
import { Graphs, Live, SPANS, history } from "./stream.js";

const by = (id) => document.getElementById(id);
const live = new Graphs(SPANS[0].seconds);
const changes = new Changes();
const fleet = new Fleet(changes);
const board = new Board();
const endpoints = new Endpoints((name) => choose(name === chosen ? "" : name));

let span = SPANS[0];
let graphs = live;
let chosen = "";
let picture = null;
let fetched = 0;
let means = "";

for (const one of SPANS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = one.name;
  button.setAttribute("aria-label", one.words);
  button.addEventListener("click", () => show(one));
  one.button = button;
  by("spans").append(button);
}
by("endpoint").addEventListener("change", (event) => choose(event.target.value));

async function show(one) {
  span = one;
  for (const other of SPANS) other.button.setAttribute("aria-pressed", String(other === one));
  graphs = one === SPANS[0] ? live : new Graphs(one.seconds);
  fetched = 0;
  await refresh();
}

// Longer spans are asked for when a slot of theirs is over.
async function refresh() {
  const own = graphs;
  if (own !== live && Date.now() - fetched > 10_000) {
    fetched = Date.now();
    try {
      own.take(await history(span.name));
    } catch (error) {
      fetched = 0;
    }
  }
  if (own === graphs) draw();
}

function choose(name) {
  chosen = name;
  by("endpoint").value = name;
  draw();
}

function draw() {
  if (!picture) return;
  const now = Date.parse(picture.at) / 1000;
  board.show(graphs, chosen, now, span.words);
  options(endpoints.show(graphs, picture, chosen, span.words));
  const of = chosen ? picture.now.find((one) => `${one.method} ${one.route}` === chosen) : picture.total;
  const { requests = 0, errors = 0, refused = 0, p50 = null, p90 = null, p99 = null } = of ?? {};
  tiles("tiles", [
    { name: "Requests a second", text: perSecond(requests, picture.seconds) },
    { name: "Errors a second", text: perSecond(errors, picture.seconds),
      small: requests ? percent(errors, requests) : "", kind: errors ? "bad" : "" },
    { name: "4xx a second", text: perSecond(refused, picture.seconds) },
    { name: "p50", text: latency(p50) },
    { name: "p90", text: latency(p90) },
    { name: "p99", text: latency(p99) },
  ]);
  const begins = picture.history_begins;
  by("graph-note").textContent = begins && begins > now - span.seconds
    ? `Counted since ${time(begins)}; nothing is known of the time before.` : "";
}

function options(names) {
  const list = by("endpoint");
  const wanted = ["", ...names];
  if (wanted.join("\n") === [...list.options].map((option) => option.value).join("\n")) return;
  list.replaceChildren(...wanted.map((name) => new Option(name || "all endpoints", name)));
  list.value = chosen;
}

function verdict() {
  const problems = picture.problems;
  const bad = problems.filter((problem) => problem.weight === "bad").length;
  const kind = bad ? "bad" : problems.length ? "warning" : "good";
  const words = bad
    ? plural(bad, "problem", "problems")
    : problems.length ? plural(problems.length, "warning", "warnings") : "All is well";
  const place = by("verdict");
  if (place.textContent !== words) place.textContent = words;
  place.className = `verdict ${kind}`;
  document.title = `${bad ? "🔴" : problems.length ? "🟠" : "🟢"} ${words} – bingo`;
  const list = by("problem-list");
  const text = JSON.stringify(problems);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  list.replaceChildren(...(problems.length ? problems.map(item) : [nothing()]));
}

function item({ weight, what, why, since }) {
  const line = document.createElement("li");
  line.className = weight;
  const word = document.createElement("b");
  word.className = `${weight}-word`;
  word.textContent = weight === "bad" ? "✖ Problem" : "▲ Warning";
  const head = document.createElement("b");
  head.textContent = what;
  const rest = [why, since && `since ${time(since)}`].filter(Boolean).join("; ");
  line.append(word, head, document.createTextNode(rest));
  return line;
}

function nothing() {
  const line = document.createElement("li");
  line.className = "none";
  line.textContent = "✔ Nothing is wrong that this page can see.";
  return line;
}

new Live({
  seconds: (view) => live.take(view),
  picture: (next) => {
    picture = next;
    by("asof").textContent = `as of ${time(picture.at)}, told by ${picture.by}; live updates: ${means}`;
    changes.allow(picture.takes_changes);
    verdict();
    fleet.show(picture, live);
    refresh();
  },
  lost: () => {
    document.body.classList.add("stale");
    const place = by("lost");
    place.hidden = false;
    place.textContent = picture
      ? `No gateway answers. These figures are of ${time(picture.at)}; what happened since then is not known.`
      : "No gateway answers; nothing is known yet.";
    by("verdict").className = "verdict unknown";
    by("verdict").textContent = "Connection lost";
    document.title = "⚪ Connection lost – bingo";
  },
  means: (words) => {
    means = words;
  },
  back: () => {
    document.body.classList.remove("stale");
    by("lost").hidden = true;
  },
});
show(SPANS[0]);
