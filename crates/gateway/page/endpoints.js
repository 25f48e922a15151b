// The table of endpoints: each with its graph, its figures of the last seconds and what is left of its
// objective's budget. The name is a button that chooses it for the large graphs.

import { latency, percent, perSecond } from "./format.js";
import { byRoute } from "./stream.js";
import { Table, drawSpark, spark } from "./table.js";

const BINS = 150;

// The lesser of the two halves of a promise, in words.
function budget(objective) {
  if (!objective) return { text: "" };
  const { errors, slow, requests, within_seconds: within } = objective.day;
  if (!requests) return { text: "no requests", kind: "" };
  const parts = [{ part: errors, words: `at most ${errors.percent_max} % errors` }];
  if (slow) {
    const words = `at most ${slow.percent_max} % slower than ${latency(within)}`;
    parts.push({ part: slow, words });
  }
  parts.sort((one, other) => one.part.left_percent - other.part.left_percent);
  const [{ part }] = parts;
  const left = part.left_percent;
  const title = parts.map((one) => `${one.words}: ${one.part.percent.toFixed(2)} %`).join("; ");
  if (left < 0) return { text: `spent (${part.percent.toFixed(1)} % of ${part.percent_max} %)`, badge: "bad", title };
  return { text: `${left.toFixed(0)} %`, kind: left < 25 ? "warning" : "", title };
}

export class Endpoints {
  constructor(choose) {
    this.chosen = "";
    this.table = new Table("endpoints", [
      {
        head: "Endpoint", kind: "whole",
        make: (item) => {
          const button = document.createElement("button");
          button.type = "button";
          button.className = "plain";
          button.textContent = item.name === "other other" ? "other" : item.name;
          button.addEventListener("click", () => choose(item.name));
          return button;
        },
        show: (button, item, row) => {
          const chosen = item.name === this.chosen;
          button.setAttribute("aria-pressed", String(chosen));
          row.classList.toggle("chosen", chosen);
        },
      },
      {
        head: "Requests, errors", kind: "whole",
        make: () => spark(),
        show: (svg, item) => drawSpark(svg, [
          { kind: "requests", values: item.requests },
          // Without any error the line would only hide the other's foot.
          ...(item.errors.some((value) => value) ? [{ kind: "errors", values: item.errors }] : []),
        ], item.words),
      },
      { head: "Requests/s", label: "req/s", kind: "number", cell: (item) => perSecond(item.now.requests, item.seconds) },
      {
        head: "Errors/s", label: "err/s", kind: "number",
        cell: (item) => ({
          text: perSecond(item.now.errors, item.seconds),
          kind: item.now.errors ? "bad" : "",
        }),
      },
      {
        head: "Errors", label: "errors", kind: "number",
        cell: (item) => ({
          text: percent(item.now.errors, item.now.requests),
          kind: item.now.errors ? "bad" : "",
        }),
      },
      { head: "4xx", label: "4xx", kind: "number", cell: (item) => percent(item.now.refused, item.now.requests) },
      { head: "p50", label: "p50", kind: "number", cell: (item) => latency(item.now.p50) },
      { head: "p90", label: "p90", kind: "number", cell: (item) => latency(item.now.p90) },
      { head: "p99", label: "p99", kind: "number", cell: (item) => latency(item.now.p99) },
      { head: "Budget left", label: "budget", kind: "number whole", cell: (item) => budget(item.objective) },
    ], "No endpoint was asked for anything yet.");
  }

  show(graphs, picture, chosen, words) {
    this.chosen = chosen;
    const name = (one) => `${one.method} ${one.route}`;
    const now = new Map(picture.now.map((one) => [name(one), one]));
    const objectives = new Map(picture.objectives.map((one) => [name(one), one]));
    const names = new Set([...graphs.endpoints(), ...now.keys(), ...objectives.keys()]);
    const nothing = { requests: 0, refused: 0, errors: 0, p50: null, p90: null, p99: null };
    // One look at every slot for all rows; a graph of 150 pixels shows 150 figures.
    const from = graphs.last + graphs.step - graphs.seconds;
    const bins = Array.from({ length: BINS }, () => null);
    for (const [at, slot] of graphs.slots) {
      const bin = Math.min(BINS - 1, Math.max(0, Math.floor(((at - from) / graphs.seconds) * BINS)));
      (bins[bin] ??= []).push(slot);
    }
    const items = [...names].sort(byRoute).map((endpoint) => {
      const of = (slots, key) => slots.reduce((all, slot) => all + (slot.endpoints.get(endpoint)?.[key] ?? 0), 0);
      const column = (key) => bins.map((slots) => (slots ? of(slots, key) / slots.length : null));
      const [requests, errors] = [column("requests"), column("errors")];
      const total = (key) => of([...graphs.slots.values()], key);
      return {
        name: endpoint, requests, errors,
        words: `${total("requests")} requests and ${total("errors")} errors in the last ${words}`,
        now: now.get(endpoint) ?? nothing,
        seconds: picture.seconds,
        objective: objectives.get(endpoint),
      };
    });
    this.table.show(items, (item) => item.name);
    return items.map((item) => item.name);
  }
}
