"use strict";
// Elements, numbers as texts, and tables that sort. Texts of users become text nodes, never HTML.

const DATA = JSON.parse(document.getElementById("data").textContent);

function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, about, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

let counter = 0;
const id = (name) => `${name}-${++counter}`;

// Text for plotly, which reads some HTML in names and titles.
const capital = (text) => text.replace(/^[a-z]/, (letter) => letter.toUpperCase());
const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 999.5 && size < 1e6) return Math.round(value).toLocaleString("en-US");
  if (Number.isInteger(value) && size < 1e3) return String(value);
  if (size >= 1e-3 && size < 1e3) return String(Number(value.toPrecision(3)));
  return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
}

const gapText = (value) => value.toExponential(3).replace(/\.?0+e/, "e").replace("e+", "e");
const percent = (value) => `${Number((100 * value).toPrecision(4))} %`;
const seconds = (value) => {
  if (value === 0) return "0 s";
  if (value >= 0.9995) return `${short(value)} s`;
  return value >= 0.0009995 ? `${short(1e3 * value)} ms` : `${short(1e6 * value)} µs`;
};

function bandwidth(value) {
  if (value === Infinity) return "no limit";
  const [unit, scale] = value >= 1e9 ? ["Gbit/s", 1e9] : value >= 1e6 ? ["Mbit/s", 1e6] : ["kbit/s", 1e3];
  return `${short(value / scale)} ${unit}`;
}

// A wide thing that scrolls by itself, so that the page does not.
const scroll = (label, child) => el("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, child);

function select(label, choices, chosen, act) {
  const control = el("select", { id: id("select"), on: { change: () => act(control.value) } });
  for (const { group, items } of choices) {
    const options = items.map(([value, text]) => el("option", { value, selected: String(value) === String(chosen) }, text));
    control.append(...(group ? [el("optgroup", { label: group }, options)] : options));
  }
  return el("div", { class: "control" }, el("label", { for: control.id }, label), control);
}

function tick(label, checked, act) {
  const box = el("input", { type: "checkbox", checked, on: { change: () => act(box.checked) } });
  const made = el("label", { class: "tick" }, box, label);
  made.box = box;
  return made;
}

// A range whose places stand for the values of `value(place)`; `words(value)` says them.
function slider(label, { min, max, place, value, words }, act) {
  const range = el("input", { type: "range", id: id("range"), min, max, step: 1, value: place });
  const shown = el("output", { for: range.id });
  const say = () => {
    shown.textContent = words(value(Number(range.value)));
    range.setAttribute("aria-valuetext", shown.textContent);
  };
  range.addEventListener("input", () => { say(); act(value(Number(range.value))); });
  say();
  return el("div", { class: "control range" }, el("label", { for: range.id }, label, " ", shown), range);
}

// Columns: {label, key (row -> what sorts), show (row -> text or element), text: of words, best: "low" or "high"}.
function sortable(label, columns, { most = Infinity, by = null } = {}) {
  let order = by, rows = [], all = false;
  const body = el("tbody"), more = el("button", { type: "button", class: "more", on: { click: () => { all = true; fill(); } } });
  const heads = columns.map((column, place) => {
    const button = el("button", { type: "button", title: `Sort by ${column.label}`, on: { click: () => {
      order = order && order.place === place ? { place, down: !order.down } : { place, down: column.best === "high" };
      fill();
    } } }, column.label);
    return el("th", { scope: "col", class: `${column.text ? "text" : "number"}${column.label.length > 18 ? " long" : ""}` }, column.key ? button : column.label);
  });
  const last = (value) => value === null || value === undefined || Number.isNaN(value) || value === Infinity;
  function compare(one, two) {
    if (last(one) || last(two)) return last(one) - last(two);
    const words = typeof one === "string" || typeof two === "string";
    return words ? String(one).localeCompare(String(two), "en", { numeric: true }) : one - two;
  }
  function fill() {
    const sorted = [...rows];
    if (order) {
      const { key } = columns[order.place];
      sorted.sort((one, two) => {
        const [a, b] = [key(one), key(two)];
        return compare(a, b) * (order.down && !last(a) && !last(b) ? -1 : 1);
      });
    }
    heads.forEach((head, place) => head.setAttribute("aria-sort",
      !order || order.place !== place ? "none" : order.down ? "descending" : "ascending"));
    const bests = columns.map(({ key, best }) => {
      const values = best ? rows.map(key).filter((value) => !last(value)) : [];
      return values.length < 2 ? null : best === "high" ? Math.max(...values) : Math.min(...values);
    });
    const shown = all ? sorted : sorted.slice(0, most);
    body.replaceChildren(...shown.map((row) => el("tr", {}, columns.map((column, place) => {
      const best = bests[place] !== null && column.key(row) === bests[place];
      const cell = column.show(row);
      const tag = place === 0 && column.text ? "th" : "td";
      return el(tag, { scope: tag === "th" ? "row" : null, class: column.text ? "text" : "number" },
        best ? el("strong", { title: "best of this column" }, cell) : cell);
    }))));
    more.textContent = `Show all ${rows.length} rows`;
    more.hidden = all || sorted.length <= most;
  }
  const table = el("table", {}, el("thead", {}, el("tr", {}, heads)), body);
  const made = el("div", {}, scroll(label, table), more);
  made.update = (now) => { rows = now; fill(); };
  made.rename = (place, text) => {
    columns[place].label = text;
    Object.assign(heads[place].firstChild, { textContent: text, title: `Sort by ${text}` });
  };
  return made;
}

// `stacked`: on a phone each row becomes a block of names and values.
function plainTable(label, heads, rows, stacked = false) {
  return scroll(label, el("table", { class: stacked ? "stacked" : null },
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: "text" }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, place) =>
      el(place ? "td" : "th", { class: "text", scope: place ? null : "row", "data-head": heads[place] }, cell)))))));
}

function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))));
}

// How something was made: the command, what it ran on, and its configuration.
function madeOf(title, made) {
  const parts = made.map(({ command, facts: known, chosen, notes }) => el("div", { class: "made" },
    command ? el("pre", { tabindex: 0, role: "region", "aria-label": "command" }, el("code", {}, command)) : null,
    notes.map((note) => el("p", { class: "small" }, note)),
    chosen.length ? el("h4", {}, "Configuration") : null, chosen.length ? facts(chosen) : null,
    known.length ? el("h4", {}, "Made with") : null, known.length ? facts(known) : null));
  return el("details", {}, el("summary", {}, title), parts);
}

const FONT = { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", size: 13, color: "#1b1f24" };
const narrow = () => window.innerWidth < 640;

// An axis for these values: on a log axis over several decades only whole ones are named.
function axisFor(values, log) {
  const there = values.filter((value) => Number.isFinite(value) && (value > 0 || !log));
  if (!log) return { type: "linear" };
  const span = there.length ? Math.log10(there.reduce((a, b) => Math.max(a, b)) / there.reduce((a, b) => Math.min(a, b))) : 0;
  return { type: "log", ...(span > 0.7 && { dtick: span > 2.5 ? Math.ceil(span / (narrow() ? 5 : 9)) : "D2" }) };
}

function draw(place, traces, layout) {
  const axis = (given) => ({
    automargin: true, gridcolor: "#e5e7eb", linecolor: "#6b7280", zeroline: false, ticks: "outside", tickcolor: "#9ca3af",
    exponentformat: "power", ...given, title: { standoff: 10, font: { size: 13 }, ...given.title },
  });
  const whole = {
    font: FONT, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", showlegend: false, hovermode: "closest", autosize: true,
    margin: { l: 8, r: 12, t: 12, b: 8 }, hoverlabel: { bgcolor: "#ffffff", bordercolor: "#6b7280", font: { color: "#1b1f24" }, align: "left" },
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  };
  const config = {
    responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover", showTips: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg", filename: "curves" },
  };
  return Plotly.react(place, traces, whole, config);
}

// What a curve at this place of the legend looks like, as in all pictures of the package.
function look(place) {
  const { colours, symbols, dashes } = DATA.look;
  return {
    colour: colours[place % colours.length],
    dash: dashes[Math.floor(place / colours.length) % dashes.length],
    symbol: symbols[place % symbols.length],
  };
}

function swatch({ colour, dash }) {
  const strokes = { solid: "", dashdot: "8 3 2 3", dot: "2 3" };
  return svg("svg", { width: 26, height: 12, "aria-hidden": "true", class: "swatch" },
    svg("line", { x1: 1, y1: 6, x2: 25, y2: 6, stroke: colour, "stroke-width": 3, "stroke-dasharray": strokes[dash] }));
}
