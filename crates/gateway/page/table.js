// Tables that are filled again every second without losing focus, selection or the place that was
// scrolled to: a row is known by its key and a cell is only touched when its text changes.
//
// A column is {head, label, kind, cell(item)} with cell giving text, or {text, kind, badge, title}; or
// {head, kind, make(item), show(element, item)} for a cell with an element that stays.

export class Table {
  constructor(id, columns, empty, fold = true) {
    this.table = document.getElementById(id);
    this.columns = columns;
    this.empty = empty;
    this.rows = new Map();
    if (fold) this.table.classList.add("fold");
    const head = this.table.createTHead().insertRow();
    for (const column of columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = column.head;
      cell.className = column.kind?.startsWith("number") ? "number" : "";
      head.append(cell);
    }
    this.body = this.table.createTBody();
  }

  // `empty`: the words for a table without rows, this time.
  show(items, key, empty = this.empty) {
    const keys = new Set();
    let before = null;
    for (const item of items) {
      const name = key(item);
      keys.add(name);
      const row = this.rows.get(name) ?? this.add(name, item);
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== row.element) this.body.insertBefore(row.element, next);
      before = row.element;
      this.fill(row, item);
    }
    for (const [name, row] of this.rows) {
      if (!keys.has(name)) {
        row.element.remove();
        this.rows.delete(name);
      }
    }
    this.sayEmpty(items.length === 0 ? empty : null);
  }

  sayEmpty(words) {
    this.note?.remove();
    this.note = null;
    if (words === null) return;
    this.note = this.body.insertRow();
    const cell = this.note.insertCell();
    cell.colSpan = this.columns.length;
    cell.className = "empty whole";
    cell.textContent = words;
  }

  add(name, item) {
    const element = document.createElement("tr");
    const cells = this.columns.map((column) => {
      const cell = element.insertCell();
      cell.className = column.kind ?? "";
      if (column.label) cell.dataset.label = column.label;
      const inner = column.make?.(item) ?? null;
      if (inner) cell.append(inner);
      return { cell, inner };
    });
    const row = { element, cells };
    this.rows.set(name, row);
    return row;
  }

  fill(row, item) {
    this.columns.forEach((column, index) => {
      const { cell, inner } = row.cells[index];
      if (inner) {
        column.show(inner, item, row.element);
        return;
      }
      const value = column.cell(item);
      const { text, kind = "", badge = null, title = "" } =
        typeof value === "object" && value !== null ? value : { text: String(value) };
      const shown = JSON.stringify([text, kind, badge, title]);
      if (cell.dataset.shown === shown) return;
      cell.dataset.shown = shown;
      cell.className = `${column.kind ?? ""} ${kind}`.trim();
      cell.title = title;
      if (badge) {
        const mark = document.createElement("span");
        mark.className = `badge ${badge}`;
        mark.textContent = text;
        cell.replaceChildren(mark);
      } else {
        cell.textContent = text;
      }
    });
  }
}

const SVG = "http://www.w3.org/2000/svg";

// A small graph of requests with errors on the same scale; null breaks the line.
export function spark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 150 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  return svg;
}

export function drawSpark(svg, series, words) {
  const points = Math.max(...series.map((one) => one.values.length));
  const most = Math.max(1e-9, ...series.flatMap((one) => one.values.map((value) => value ?? 0)));
  const lines = [];
  for (const { values, kind } of series) {
    let line = [];
    values.forEach((value, index) => {
      if (value === null) {
        if (line.length) lines.push({ kind, line });
        line = [];
        return;
      }
      const x = points < 2 ? 150 : (index / (points - 1)) * 150;
      line.push(`${x.toFixed(1)},${(28.5 - (value / most) * 27).toFixed(1)}`);
    });
    if (line.length) lines.push({ kind, line });
  }
  svg.replaceChildren(...lines.map(({ kind, line }) => {
    const drawn = document.createElementNS(SVG, "polyline");
    drawn.setAttribute("class", kind);
    drawn.setAttribute("points", line.join(" "));
    return drawn;
  }));
  svg.setAttribute("aria-label", words);
}
