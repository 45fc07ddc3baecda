"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;

// ---------------------------------------------------------------- theme

const themeButton = document.getElementById("theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

function stored(name) {
  try { return window.localStorage.getItem(name); } catch { return null; }
}

function setTheme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  themeButton.setAttribute("aria-pressed", String(dark));
}

setTheme(stored("pmlp-theme") ? stored("pmlp-theme") === "dark" : prefersDark.matches);
prefersDark.addEventListener("change", (event) => { if (!stored("pmlp-theme")) setTheme(event.matches); });
themeButton.addEventListener("click", () => {
  const dark = root.dataset.theme !== "dark";
  setTheme(dark);
  try { window.localStorage.setItem("pmlp-theme", dark ? "dark" : "light"); } catch { /* private window */ }
});

// ---------------------------------------------------------------- figures, drawn when they come into view

const touches = window.matchMedia("(pointer: coarse)").matches;
const config = { displayModeBar: false, responsive: true, doubleClick: "reset", scrollZoom: false };

// plotly is compiled after the load event: numbers and tables are there at once
function loadPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

function draw(holder) {
  if (holder.dataset.drawn) return;
  loadPlotly();
  holder.dataset.drawn = "true";
  const { data: traces, layout } = data.figures[holder.dataset.figure];
  const legend = layout.showlegend !== false && (traces.length > 1 || layout.showlegend);
  const margin = { l: 8, r: 12, t: legend && traces[0].type !== "heatmap" ? 36 : 10, b: 8 };
  const whole = {
    ...layout,
    template: data.template,
    autosize: true,
    height: holder.clientHeight,
    margin: { ...margin, ...(layout.margin || {}) },
    dragmode: touches ? false : "zoom",
  };
  Plotly.newPlot(holder, traces, whole, config);
}

const holders = [...document.querySelectorAll(".plot")];
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "400px" });
window.addEventListener("load", () => setTimeout(() => holders.forEach((holder) => watcher.observe(holder))));

const PRINT_WIDTH = 660;
window.addEventListener("beforeprint", () => {
  for (const holder of holders) {
    draw(holder);
    Plotly.relayout(holder, { width: PRINT_WIDTH });
  }
});
window.addEventListener("afterprint", () => {
  for (const holder of holders) Plotly.relayout(holder, { width: null, autosize: true });
});

// ---------------------------------------------------------------- values of tables

function scoreText(value) {
  const size = Math.abs(value);
  if (size >= 1e9 || (size > 0 && size < 1e-4)) return value.toPrecision(4);
  const digits = size >= 100 ? 1 : size >= 10 ? 3 : size >= 0.01 || size === 0 ? 4 : 5;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const formats = {
  count: (value) => value.toLocaleString("en-US"),
  score: scoreText,
  number: (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)))),
  seconds: (value) => (value < 10 ? value.toFixed(2) : value.toFixed(1)),
  share: (value) => (value === 0 ? "0 %" : value < 0.001 ? "<0.1 %" : `${(100 * value).toFixed(1)} %`),
  p: (value) => (value < 0.001 ? "<0.001" : value.toFixed(3)),
  error: (value) => String(Number(value.toPrecision(2))),
  weight: (value) => (value > 0 ? value.toFixed(3) : ""),
  text: String,
  long: String,
  cell: (value) => (typeof value === "number" ? scoreText(value) : String(value)),
};
const isNumeric = (kind) => !["text", "cell", "long"].includes(kind);

function compare(first, second) {
  if (typeof first === "number" && typeof second === "number") return first - second;
  return String(first).localeCompare(String(second), "en", { numeric: true });
}

// ---------------------------------------------------------------- tables that sort, filter and turn pages

const comparisons = {
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  "=": (a, b) => String(a).toLowerCase() === String(b).toLowerCase(),
};

class DataTable {
  constructor(holder) {
    Object.assign(this, data.tables[holder.dataset.table]);
    this.holder = holder;
    this.count = this.values[0].length;
    this.order = [...Array(this.count).keys()];
    this.sorted = { column: -1, descending: false };
    this.start = 0;
    this.weights = this.columns.findIndex((column) => column.kind === "weight");
    this.build();
    this.show();
  }

  build() {
    this.tools = element("div", "tools", this.holder);
    if (this.filter) {
      this.input = element("input", "", this.tools);
      Object.assign(this.input, { type: "search", placeholder: "Filter" });
      this.input.setAttribute("aria-label", "Filter rows");
      this.input.addEventListener("input", () => this.refresh());
    }
    if (this.choices) {
      const place = this.columns.findIndex((column) => column.key === this.choices);
      this.select = element("select", "", this.tools);
      this.select.setAttribute("aria-label", `Choose ${this.choices}`);
      for (const choice of ["all", ...(this.weights >= 0 ? ["in the ensemble"] : []), ...new Set(this.values[place])]) {
        element("option", "", this.select).textContent = choice;
      }
      this.choicePlace = place;
      this.select.addEventListener("change", () => this.refresh());
    }
    this.counter = element("span", "count", this.tools);
    this.tools.hidden = !this.filter && this.count <= this.page;
    this.counter.setAttribute("role", "status");
    const scroll = element("div", "scroll", this.holder);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Table of ${this.name}s`);
    const table = element("table", "", scroll);
    const head = element("tr", "", element("thead", "", table));
    this.heads = this.columns.map((column, place) => {
      const cell = element("th", isNumeric(column.kind) ? "number" : "", head);
      cell.scope = "col";
      const button = element("button", "", cell);
      button.type = "button";
      button.textContent = column.label;
      button.addEventListener("click", () => this.sort(place));
      return cell;
    });
    this.body = element("tbody", "", table);
    this.pages = element("div", "pages", this.holder);
    this.previous = this.turn("Previous", -1);
    this.position = element("span", "", this.pages);
    this.next = this.turn("Next", 1);
  }

  turn(text, step) {
    const button = element("button", "", this.pages);
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => { this.start += step * this.page; this.show(); });
    return button;
  }

  sort(place) {
    const again = this.sorted.column === place;
    const descending = again ? !this.sorted.descending : ["score", "weight"].includes(this.columns[place].kind);
    this.sorted = { column: place, descending };
    this.heads.forEach((head, number) => {
      if (number === place) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.refresh();
  }

  refresh() {
    const tests = this.tests();
    this.order = [];
    for (let row = 0; row < this.count; row++) if (tests.every((test) => test(row))) this.order.push(row);
    const { column, descending } = this.sorted;
    if (column >= 0) {
      const values = this.values[column];
      const sign = descending ? -1 : 1;
      this.order.sort((a, b) => {
        if (values[a] === null || values[b] === null) return (values[a] === null) - (values[b] === null) || a - b;
        return sign * compare(values[a], values[b]) || a - b;
      });
    }
    this.start = 0;
    this.show();
  }

  tests() {
    const tests = [];
    if (this.select && this.select.selectedIndex > 0) {
      const chosen = this.select.value;
      const isMember = this.weights >= 0 && this.select.selectedIndex === 1;
      tests.push(isMember ? (row) => this.values[this.weights][row] > 0
        : (row) => this.values[this.choicePlace][row] === chosen);
    }
    const words = this.input ? this.input.value.trim().toLowerCase().split(/\s+/).filter(Boolean) : [];
    for (const word of words) {
      const parts = /^([a-z_#]+)(<=|>=|<|>|=)(.+)$/.exec(word);
      const place = parts ? this.columns.findIndex((c) => c.key === parts[1] || c.label === parts[1]) : -1;
      if (place >= 0) {
        const bound = parts[2] === "=" || Number.isNaN(Number(parts[3])) ? parts[3] : Number(parts[3]);
        tests.push((row) => this.values[place][row] !== null && comparisons[parts[2]](this.values[place][row], bound));
      } else {
        tests.push((row) => this.values.some((v) => v[row] !== null && String(v[row]).toLowerCase().includes(word)));
      }
    }
    return tests;
  }

  show() {
    const last = Math.max(0, Math.floor((this.order.length - 1) / this.page) * this.page);
    this.start = Math.min(Math.max(0, this.start), last);
    const shown = this.order.slice(this.start, this.start + this.page);
    const rows = shown.map((row) => {
      const line = document.createElement("tr");
      if (this.weights >= 0 && this.values[this.weights][row] > 0) line.className = "member";
      this.columns.forEach((column, place) => {
        const value = this.values[place][row];
        const cell = element("td", isNumeric(column.kind) ? "number" : column.kind, line);
        if (column.kind === "weight" && value > 0) {
          element("span", "weight", cell).style.width = `${Math.max(2, Math.round(48 * value))}px`;
        }
        cell.append(value === null ? "" : formats[column.kind](value));
      });
      return line;
    });
    this.body.replaceChildren(...rows);
    const total = this.order.length;
    const all = total === this.count ? "" : ` of ${formats.count(this.count)}`;
    this.counter.textContent = `${formats.count(total)}${all} ${this.name}${total === 1 ? "" : "s"}`;
    this.position.textContent = total ? `${this.start + 1} to ${this.start + shown.length}` : "none";
    this.previous.disabled = this.start === 0;
    this.next.disabled = this.start >= last;
    this.pages.hidden = this.count <= this.page;
    this.pages.style.display = this.pages.hidden ? "none" : "";
  }
}

function element(tag, name, parent) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  parent.append(made);
  return made;
}

document.querySelectorAll(".datatable").forEach((holder) => new DataTable(holder));

// ---------------------------------------------------------------- commands

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      window.getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
