// The part of a sweep: a map of two axes, parallel coordinates, and the table of configurations.

const VIRIDIS = ["#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878", "#440154"];
const MISSED = "#e5e7eb";
const MOST_VALUES = 24, MOST_NUMBERS = 12, MOST_ROWS = 25, MOST_MARKED = 150;

const isNumber = (value) => typeof value === "number";
const valueText = (value) => (isNumber(value) ? short(value) : value === null || value === undefined ? "–" : typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
const axisLabel = (name) => (name.endsWith("/theory") ? `${name.slice(0, -7)} (× theory's)` : name);

// The values of an axis: numbers in increasing order, then words in the order of the sweep.
function valuesOf(curves, name) {
  const values = [...new Set(curves.map((curve) => (name === "method" ? curve.method : curve.settings[name])))].filter((value) => value !== undefined);
  return [...values.filter(isNumber).sort((a, b) => a - b), ...values.filter((value) => !isNumber(value))];
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const settingOf = (curve, name) => (name === "method" ? curve.method : curve.settings[name]);

function sweepPart(sweep, { curves, state, measure, measureWords, measureText, drawn, pick, unpick }) {
  const own = sweep.curves.map((place) => curves[place]);
  const methods = [...new Set(own.map((curve) => curve.method))];
  const part = el("div", { class: "sweep" }, el("h3", {}, `Sweep: ${sweep.label}`));
  const note = el("p", { class: "small" });
  part.append(note);
  const of = (method) => own.filter((curve) => method === "" || curve.method === method);
  const axesOf = (method) => sweep.axes.filter((name) => valuesOf(of(method), name).length > 1);

  // Costs on a logarithmic scale of colours, the cheapest the lightest; accuracies the other way round.
  function scale(values) {
    const there = values.filter(Number.isFinite), log = there.length > 0 && Math.min(...there) > 0 && !measure().up;
    const to = log ? Math.log10 : (value) => value;
    const [low, high] = there.length ? [to(Math.min(...there)), to(Math.max(...there))] : [0, 1];
    const back = (value) => (log ? 10 ** value : value);
    const part = (value) => (high > low ? (to(value) - low) / (high - low) : 0);
    const ticks = [1e-4, 0.25, 0.5, 0.75, 0.9999].map((share) => low + share * (high - low)) /* within, despite rounding */.filter((tick, i) => high > low || i === 0);
    return { log, to, low, high, part: (value) => (measure().up ? 1 - part(value) : part(value)), ticks, texts: ticks.map((tick, i) => measureText(back(i === 0 ? low : i === 4 ? high : tick))) };
  }
  const scaleColours = () => VIRIDIS.map((_, i) => [i / (VIRIDIS.length - 1), VIRIDIS[measure().up ? VIRIDIS.length - 1 - i : i]]);

  // --- the map
  const shared = sweep.axes.filter((name) => methods.every((method) => valuesOf(of(method), name).length));
  const whole = methods.length > 1 && shared.length > 0; // whether all methods fit on one map
  const map = { method: whole ? "" : methods.find((method) => axesOf(method).length) ?? methods[0], x: "", y: "" };
  const mapControls = el("div", { class: "controls panel" }), mapChart = el("div", { class: "plot map", role: "img", "aria-label": `Map of ${sweep.label}, whose numbers are in the table below` }), mapCaption = el("figcaption", {});
  const mapPart = el("div", {}, el("h4", {}, "Map"), mapControls, el("figure", {}, mapChart, mapCaption));
  part.append(mapPart);

  function choices() {
    return map.method === "" ? [...shared, "method"] : axesOf(map.method);
  }
  function chooseAxes() {
    const names = choices();
    if (!names.includes(map.x)) [map.x] = names;
    if (!names.includes(map.y) || map.y === map.x) map.y = names.find((name) => name !== map.x) || "";
    const items = names.map((name) => [name, axisLabel(name)]);
    mapControls.replaceChildren(...[
      methods.length > 1 ? select("Method", [{ items: [...(whole ? [["", "best of all"]] : []), ...methods.map((method) => [method, method])] }], map.method, (method) => { map.method = method; chooseAxes(); drawMap(); }) : null,
      select("Across", [{ items }], map.x, (name) => { map.x = name; if (map.y === name) map.y = ""; chooseAxes(); drawMap(); }),
      names.length > 1 ? select("Up", [{ items: items.filter(([name]) => name !== map.x) }], map.y, (name) => { map.y = name; drawMap(); }) : null,
    ].filter(Boolean));
  }

  function cellsOf() {
    const now = measure(), cells = new Map();
    for (const curve of of(map.method)) {
      const [x, y] = [settingOf(curve, map.x), map.y ? settingOf(curve, map.y) : ""];
      if (x === undefined || y === undefined) continue;
      const key = JSON.stringify([x, y]);
      if (!cells.has(key)) cells.set(key, { x, y, curves: [] });
      cells.get(key).curves.push(curve);
    }
    return [...cells.values()].map(({ x, y, curves: there }) => {
      const curve = bestOf(there, now, state.prices);
      return { x, y, curve, cost: price(curve, now, state.prices), of: there.length };
    });
  }

  function drawMap() {
    if (!map.x) return;
    const cells = cellsOf(), columns = valuesOf(of(map.method), map.x), rows = map.y ? valuesOf(of(map.method), map.y) : [""];
    const repeats = cells.length > Math.max(columns.length, rows.length) || Math.min(columns.length, rows.length) === 1;
    const numeric = columns.every(isNumber) && rows.every(isNumber);
    const colours = scale(cells.map(({ cost }) => cost.median));
    if (numeric && (columns.length > MOST_VALUES || rows.length > MOST_VALUES || !repeats)) drawCloud(cells, columns, rows, colours);
    else drawCells(cells, columns, rows, colours);
    const others = axesOf(map.method).filter((name) => name !== map.x && name !== map.y && valuesOf(of(map.method), name).length > 1);
    mapCaption.textContent = `${capital(measureWords())}, ${seedWords(own).split(",")[0]}${cells.some((cell) => cell.of > 1) ? `; each cell at its best ${others.map(axisLabel).join(", ") || "configuration"}` : ""}. Grey: half of the seeds or more do not reach it. Framed: the best.`;
  }

  const hoverOf = ({ curve, cost }) => `<b>${safe(curve.label)}</b><br>${safe(measureWords())}: ${safe(measureText(cost.median))}<br>${cost.reached} of ${cost.seeds} seeds reach it${cost.diverged ? `, ${cost.diverged} diverged` : ""}`;
  const few = (list) => (narrow() ? list.filter((_, i) => i % 2 === 0) : list);
  const bar = (colours) => ({ title: { text: "", side: "right" }, tickvals: few(colours.ticks), ticktext: few(colours.texts), thickness: 12, outlinewidth: 0, ...(narrow() && { orientation: "h", y: -0.35, yanchor: "top" }) });

  function drawCells(cells, columns, rows, colours) {
    const grid = (make) => rows.map((y) => columns.map((x) => { const cell = cells.find((each) => each.x === x && each.y === y); return cell ? make(cell) : null; }));
    const names = [columns, rows].map((values) => values.map((value) => safe(valueText(value))));
    const fits = Number.isFinite;
    const few = columns.length <= (narrow() ? 6 : MOST_NUMBERS);
    const text = grid(({ cost }) => (few ? `${measureText(cost.median)}${cost.reached < cost.seeds && fits(cost.median) ? `<br>${cost.reached}/${cost.seeds}` : ""}` : ""));
    const cell = { x: names[0], y: names[1], type: "heatmap", hoverinfo: "text", hovertext: grid(hoverOf), xgap: 2, ygap: 2, text, texttemplate: "%{text}", textfont: { size: narrow() ? 10 : 12 } };
    const best = cells.filter(({ cost }) => fits(cost.median)).reduce((one, two) => (one === null || two.cost.rank < one.cost.rank ? two : one), null);
    const shapes = best === null ? [] : [{ type: "rect", x0: columns.indexOf(best.x) - 0.5, x1: columns.indexOf(best.x) + 0.5, y0: rows.indexOf(best.y) - 0.5, y1: rows.indexOf(best.y) + 0.5, line: { color: "#000000", width: 3 } }];
    const traces = [{ ...cell, z: grid(({ cost }) => (fits(cost.median) ? null : 0)), colorscale: [[0, MISSED], [1, MISSED]], showscale: false, meta: "missed" }];
    if (best !== null) {
      traces.push({ ...cell, z: grid(({ cost }) => (fits(cost.median) ? colours.to(cost.median) : null)), zmin: colours.low, zmax: colours.high > colours.low ? colours.high : colours.low + 1,
        colorscale: scaleColours(), colorbar: bar(colours), meta: "map" });
    }
    mapChart.style.height = `${Math.max(12, (narrow() ? 12 : 8) + 2.9 * rows.length)}rem`;
    const axis = (name, values) => ({ type: "category", showgrid: false, title: { text: name ? safe(axisLabel(name)) : "" }, categoryarray: values, categoryorder: "array", ticks: "" });
    draw(mapChart, traces, { shapes, xaxis: axis(map.x, names[0]), yaxis: axis(map.y, names[1]), dragmode: false });
  }

  function drawCloud(cells, columns, rows, colours) {
    const fits = ({ cost }) => Number.isFinite(cost.median);
    const dots = (there, marker, meta) => ({ x: there.map(({ x }) => x), y: there.map(({ y }) => y), mode: "markers", hoverinfo: "text", hovertext: there.map(hoverOf), marker: { size: 12, ...marker }, meta });
    const reached = cells.filter(fits);
    const axis = (name, values) => ({ type: values[0] > 0 && values[values.length - 1] >= 10 * values[0] ? "log" : "linear", title: { text: safe(axisLabel(name)) } });
    mapChart.style.height = "26rem";
    draw(mapChart, [
      dots(cells.filter((cell) => !fits(cell)), { color: MISSED, symbol: "x-thin-open", line: { color: "#6b7280", width: 1.5 } }, "missed"),
      dots(reached, { color: reached.map(({ cost }) => colours.to(cost.median)), cmin: colours.low, cmax: colours.high, colorscale: scaleColours(), showscale: true, colorbar: bar(colours), line: { color: "#1b1f24", width: 0.7 } }, "map"),
    ], { xaxis: axis(map.x, columns), yaxis: axis(map.y, rows) });
  }

  // --- parallel coordinates
  const lines = el("div", { class: "plot parallel", role: "img", "aria-label": `Parallel coordinates of ${sweep.label}, whose numbers are in the table below` }), linesCaption = el("figcaption", {});
  const linesPart = el("div", {}, el("h4", {}, "Parallel coordinates"), el("figure", {}, lines, linesCaption));
  part.append(linesPart);

  // Where the values of an axis stand between 0 and 1, and which of them are named.
  function axisOf(values, text) {
    const numbers = values.length > 0 && values.every((value) => isNumber(value));
    const log = numbers && values[0] > 0 && values[values.length - 1] >= 10 * values[0];
    const to = !numbers ? (value) => values.indexOf(value) : log ? Math.log : (value) => value;
    const [low, high] = !numbers ? [0, values.length - 1] : [to(values[0]), to(values[values.length - 1])];
    const at = (value) => (high > low ? (to(value) - low) / (high - low) : 0.5);
    const step = Math.ceil(values.length / 8);
    return { at, named: values.filter((_, i) => i % step === 0 || i === values.length - 1).map((value) => [at(value), text(value)]) };
  }

  function drawLines() {
    const now = measure(), names = [...(methods.length > 1 ? ["method"] : []), ...sweep.axes];
    const rated = own.map((curve) => ({ curve, cost: price(curve, now, state.prices) }));
    const finite = rated.filter(({ cost }) => Number.isFinite(cost.median)).sort((one, two) => one.cost.rank - two.cost.rank);
    const colours = scale(rated.map(({ cost }) => cost.median)), missedAt = 1.12;
    const axes = names.map((name) => axisOf(valuesOf(own, name), valueText));
    const share = (value) => (measure().up ? 1 - colours.part(value) : colours.part(value));
    const last = { named: finite.length ? colours.ticks.map((tick, i) => [colours.high > colours.low ? (tick - colours.low) / (colours.high - colours.low) : 0, colours.texts[i]]) : [] };
    if (finite.length < rated.length) last.named.push([missedAt, "missed"]);
    const path = ({ curve, cost }) => [
      ...names.map((name, i) => { const value = settingOf(curve, name); return value === undefined ? null : axes[i].at(value); }),
      Number.isFinite(cost.median) ? share(cost.median) : missedAt];
    const bins = new Map(), shown = new Set(drawn());
    for (const each of rated) {
      const strong = shown.has(each.curve);
      const bin = Number.isFinite(each.cost.median) ? Math.round(colours.part(each.cost.median) * (VIRIDIS.length - 1)) : -1;
      const key = `${strong ? 1 : 0} ${bin}`;
      if (!bins.has(key)) bins.set(key, { strong, bin, x: [], y: [], text: [] });
      const into = bins.get(key), way = path(each);
      into.x.push(...way.map((_, i) => i), null);
      into.y.push(...way, null);
      into.text.push(...way.map(() => hoverOf(each)), null);
    }
    const order = [...bins.values()].sort((one, two) => one.strong - two.strong || (one.bin === -1 ? -1 : two.bin === -1 ? 1 : two.bin - one.bin));
    const traces = order.map(({ strong, bin, x, y, text }) => ({
      x, y, hovertext: text, hoverinfo: "text", mode: strong || own.length <= MOST_MARKED ? "lines+markers" : "lines", meta: strong ? "drawn" : "lines", connectgaps: false,
      line: { color: bin === -1 ? "#c3c7cd" : VIRIDIS[bin], width: strong ? 4.5 : 1.5 }, opacity: strong ? 1 : 0.75,
      marker: { size: strong ? 9 : 5, color: bin === -1 ? "#c3c7cd" : VIRIDIS[bin], line: { color: strong ? "#1b1f24" : "#ffffff", width: strong ? 1 : 0 } },
    }));
    const labels = [...axes, last].flatMap(({ named }, i) => named.map(([y, text]) => ({
      x: i, y, text: safe(cut(text, narrow() ? 10 : 18)), showarrow: false, font: { size: narrow() ? 10 : 12, color: "#1b1f24" },
      xanchor: i === names.length ? "left" : i === 0 ? "right" : "left", xshift: i === 0 ? -9 : 9, bgcolor: "#ffffffcc", borderpad: 1,
    })));
    const titles = [...names.map((name) => (narrow() ? cut(name.replace("/theory", ""), 9) : axisLabel(name))), narrow() ? "cost" : now.last ? "at the end" : costLabel(now.kind, state.prices).replace(" per client", "").replace(/ \(up.*/, "")];
    draw(lines, traces, {
      annotations: labels, dragmode: false, margin: { l: narrow() ? 62 : 100, r: narrow() ? 62 : 90, t: 12, b: 8 },
      shapes: titles.map((_, i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: i === names.length && finite.length < rated.length ? missedAt : 1, line: { color: "#6b7280", width: 1 }, layer: "below" })),
      xaxis: { range: [-0.05, names.length + 0.05], tickvals: titles.map((_, i) => i), ticktext: titles.map(safe), showgrid: false, ticks: "", showline: false, tickangle: 0, fixedrange: true },
      yaxis: { visible: false, range: [-0.06, 1.2], fixedrange: true },
    });
    linesCaption.textContent = `One line for each of ${own.length} configurations, coloured by ${measureWords()} (yellow: best); thick lines are drawn as curves above.`;
  }

  // --- the table
  const costPlace = 1 + (methods.length > 1) + sweep.axes.length;
  const rowOf = (curve) => ({ curve, cost: price(curve, measure(), state.prices), end: price(curve, { last: "value" }, state.prices).median });
  const table = sortable(`configurations of ${sweep.label}`, [
    { label: "draw", text: true, key: null, show: ({ curve }) => drawTick(curve) },
    ...(methods.length > 1 ? [{ label: "method", text: true, key: ({ curve }) => curve.method, show: ({ curve }) => curve.method }] : []),
    ...Object.keys(Object.assign({}, ...own.map((curve) => curve.settings))).filter((name) => sweep.axes.includes(name)).map((name) => {
      const words = !valuesOf(own, name).every(isNumber);
      return { label: axisLabel(name), text: words, key: ({ curve }) => (words ? valueText(curve.settings[name]) : curve.settings[name]), show: ({ curve }) => valueText(curve.settings[name]) };
    }),
    { label: "cost", key: ({ cost }) => cost.rank, show: ({ cost }) => measureText(cost.median) },
    { label: "over seeds", key: null, show: ({ cost }) => (cost.reached > 1 ? `${measureText(cost.low)} … ${measureText(cost.high)}` : "–") },
    { label: "reached", key: ({ cost }) => cost.reached / cost.seeds, show: ({ cost }) => `${cost.reached} of ${cost.seeds}` },
    { label: "diverged", key: ({ cost }) => cost.diverged, show: ({ cost }) => String(cost.diverged) },
    { label: "last F(x)", key: ({ end }) => end, show: ({ end }) => short(end) },
  ], { most: MOST_ROWS, by: { place: costPlace, down: false } });
  const tableNote = el("p", { class: "small" });
  const again = el("button", { type: "button", class: "more", on: { click: unpick } }, "Draw the best of each method again");
  part.append(el("h4", {}, "Configurations"), tableNote, table, again);

  function drawTick(curve) {
    if (!curve.lanes[0].series) return el("span", { title: "only its costs are kept on this page" }, "–");
    const on = drawn().includes(curve);
    return el("input", { type: "checkbox", checked: on, "aria-label": `draw ${curve.label}`, on: { change: (event) => pick(curve, event.target.checked) } });
  }

  if (choices().length) chooseAxes();
  else mapPart.remove();
  if (!sweep.axes.length) linesPart.remove();
  return {
    part,
    update: () => {
      note.textContent = `${own.length} configurations, ${own.reduce((sum, curve) => sum + curve.lanes.length, 0)} lanes; compared by ${measureWords()}.`;
      tableNote.textContent = `Compared by ${measureWords()}. Tick a configuration to draw its curve.`;
      again.hidden = state.picked === null;
      drawMap();
      if (sweep.axes.length) drawLines();
      const now = measure();
      table.rename(costPlace, now.last ? "at the end" : now.kind === "time" ? "simulated time" : DATA.costs[now.kind].replace(/ per client|communication |local /g, ""));
      table.update(own.map(rowOf));
    },
  };
}
