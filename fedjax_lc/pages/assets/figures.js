// The section of a figure of a paper: pictures, claims, and what its file has in numbers, as charts and tables.

function figureSection(figure) {
  const root = el("section", { id: id("figure"), class: "figure" }, el("h2", {}, figure.title));
  const starts = [];
  if (figure.facts.length) root.append(facts(figure.facts));
  for (const text of figure.notes) root.append(el("p", { class: "small" }, text));
  root.append(el("div", { class: "pictures" }, figure.pictures.map(({ name, source }) => el("img", { src: source, alt: `${figure.title}: ${name}` }))));
  if (figure.claims.length) {
    const [heads, ...rows] = figure.claims;
    root.append(el("h3", {}, "Claims"), plainTable("claims", heads, rows.map(([claim, ...held]) => [claim, ...held.map(verdict)])));
  }
  for (const block of figure.blocks) {
    const made = (block.kind === "lines" ? linesBlock : tableBlock)(block);
    root.append(el("h3", {}, block.name.charAt(0).toUpperCase() + block.name.slice(1)), made.part);
    if (made.start) starts.push(made.start);
  }
  root.append(el("h3", {}, "How it was made"), madeOf(figure.title, figure.made));
  return { root, title: figure.title, start: () => starts.forEach((start) => start()) };
}

function verdict(text) {
  const mark = { holds: "✓ ", "does not hold": "✗ " }[text] || "";
  return el("span", { class: text === "holds" ? "holds" : text === "does not hold" ? "fails" : "" }, mark + text);
}

function seriesLegend(labels, hidden, update) {
  return labels.map((label, place) => el("button", { type: "button", "aria-pressed": String(!hidden.has(label)), on: {
    click: () => { if (!hidden.delete(label)) hidden.add(label); update(); },
  } }, swatch(look(place)), el("span", {}, label)));
}

function linesBlock({ name, x: xName, measures, series }) {
  const labels = Object.keys(series), hidden = new Set();
  const own = measures.filter((each) => !["low", "high", "error"].includes(each));
  const all = (key) => labels.flatMap((label) => series[label][key] || []).filter(Number.isFinite);
  const state = { measure: own.find((each) => ["median", "floor", "mean", "value"].includes(each)) || own[0] };
  const wide = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) >= 20 * Math.min(...values);
  state.logX = wide(all("x"));
  state.logY = wide(all(state.measure));
  const chart = el("div", { class: "plot", role: "img", "aria-label": `Lines of ${name}` }), legend = el("div", { class: "legend", role: "group", "aria-label": `Lines of ${name}` });
  const logX = tick("log x", state.logX, (on) => { state.logX = on; update(); }), logY = tick("log y", state.logY, (on) => { state.logY = on; update(); });
  const controls = el("div", { class: "controls panel" },
    own.length > 1 ? select("Show", [{ items: own.map((each) => [each, each]) }], state.measure, (measure) => { state.measure = measure; state.logY = logY.box.checked = wide(all(measure)); update(); }) : null,
    el("div", { class: "control ticks" }, logX, logY));
  function update() {
    legend.replaceChildren(...seriesLegend(labels, hidden, update));
    const traces = labels.flatMap((label, place) => {
      const { x, [state.measure]: y, low, high, error } = series[label];
      if (hidden.has(label) || !y) return [];
      const { colour, dash, symbol } = look(place);
      const banded = low && high && ["median", "mean"].includes(state.measure);
      const line = { x, y, name: safe(label), mode: "lines+markers", line: { color: colour, dash, width: 2 }, marker: { color: colour, symbol, size: 8, line: { color: "#ffffff", width: 1 } }, meta: "curve",
        hovertemplate: "<b>%{fullData.name}</b><br>%{x:.4~g}: %{y:.4~g}<extra></extra>", ...(error && state.measure !== "x" && measures.includes("floor") && state.measure === "floor" && { error_y: { type: "data", array: error, color: colour, thickness: 1 } }) };
      const band = { mode: "lines", line: { width: 0, color: colour }, hoverinfo: "skip", meta: "band" };
      return banded ? [{ ...band, x, y: low }, { ...band, x, y: high, fill: "tonexty", fillcolor: `${colour}33` }, line] : [line];
    });
    draw(chart, traces, { xaxis: { ...axisFor(all("x"), state.logX), title: { text: safe(xName || "") } }, yaxis: { ...axisFor(all(state.measure), state.logY), title: { text: safe(name === state.measure || state.measure === "value" ? name : `${name}: ${state.measure}`) } } });
  }
  return { part: el("div", {}, controls, legend, el("figure", {}, chart)), start: update };
}

function tableBlock({ name, columns, rows }) {
  const numeric = columns.filter((column) => rows.some((row) => isNumber(row[column])) && rows.every((row) => row[column] === null || row[column] === undefined || isNumber(row[column])));
  const usual = ["bits_up", "accuracy mean", "value mean", "mean", "rounds"].find((each) => numeric.includes(each)) || numeric[0];
  const table = sortable(name, [
    { label: "curve", text: true, key: (row) => row.label, show: (row) => row.label },
    ...columns.map((column) => ({ label: column, text: !numeric.includes(column), key: (row) => row[column], show: (row) => valueText(row[column]) })),
  ]);
  table.update(rows);
  if (!usual) return { part: table };
  const chart = el("div", { class: "plot dots", role: "img", "aria-label": `${name}, whose numbers are in the table below` });
  const values = (column) => rows.map((row) => row[column]).filter(isNumber);
  const state = { column: usual, log: spansTen(values(usual)) };
  const log = tick("log x", state.log, (on) => { state.log = on; update(); });
  function update() {
    const there = rows.map((row, place) => ({ label: row.label, value: row[state.column], error: row[state.column.replace(/ mean$/, " error")], place }));
    const shown = there.filter(({ value }) => isNumber(value) && (value > 0 || !state.log)).sort((one, two) => two.value - one.value);
    const missing = there.filter((each) => !shown.includes(each));
    const errors = state.column.endsWith(" mean") && shown.some(({ error }) => isNumber(error));
    chart.style.height = `${6 + 1.75 * shown.length}rem`;
    const names = shown.map(({ label }) => safe(cut(label, narrow() ? 22 : 60)));
    draw(chart, [{ x: shown.map(({ value }) => value), y: shown.map((_, i) => i), mode: "markers", type: "scatter", meta: "dots", marker: { size: 11, color: shown.map(({ place }) => look(place).colour), symbol: shown.map(({ place }) => look(place).symbol) },
      hovertext: shown.map(({ label, value }) => `<b>${safe(label)}</b><br>${safe(state.column)}: ${short(value)}`), hoverinfo: "text", ...(errors && { error_x: { type: "data", array: shown.map(({ error }) => (isNumber(error) ? error : 0)), color: "#4b5563", thickness: 1.2 } }) }],
      { xaxis: { ...axisFor(values(state.column), state.log), title: { text: safe(state.column) } }, yaxis: { tickvals: shown.map((_, i) => i), ticktext: names, range: [-0.7, shown.length - 0.3], ticks: "", fixedrange: true }, dragmode: false });
    caption.textContent = missing.length ? `Without a value: ${missing.map(({ label }) => label).join("; ")}.` : "";
  }
  const caption = el("figcaption", {});
  const controls = el("div", { class: "controls panel" },
    numeric.length < 2 ? null : select("Show", [{ items: numeric.map((each) => [each, each]) }], state.column, (column) => { state.column = column; state.log = log.box.checked = spansTen(values(column)); update(); }),
    el("div", { class: "control ticks" }, log));
  return { part: el("div", {}, controls, el("figure", {}, chart, caption), table), start: update };
}

const spansTen = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) >= 10 * Math.min(...values);
