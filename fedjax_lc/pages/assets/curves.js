// The section of one problem: controls, legend, curves, who won, what everything costs, and how it was made.

function problemSection(problem) {
  const { curves, outcomes, goals } = problem;
  const root = el("section", { id: id("problem"), class: "problem" }, el("h2", {}, problem.title));
  const state = {
    kind: "bits_up", y: outcomes[0].name, logX: true, logY: true, prices: usualPrices(),
    measure: problem.goal >= 0 ? `goal:${problem.goal}` : `last:${outcomes[0].name}`, picked: null,
  };
  const hidden = new Set(), places = new Map();
  const outcomeNamed = (name) => outcomes.find((each) => each.name === name);
  const goalText = ({ name, value }) => (name === "rel_gap" ? `relative gap ${gapText(value)}` : `${name} ${percent(value)}`);
  const lastText = ({ up }, value) => (!Number.isFinite(value) ? "–" : up ? percent(value) : short(value));
  state.logY = usualLogY();

  // The measure that tables and maps of a sweep compare by.
  function measure(kind = state.kind) {
    const [how, what] = state.measure.split(/:(.*)/s);
    return how === "goal" ? { kind, goal: Number(what) } : { last: what, up: outcomeNamed(what).up };
  }
  function measureWords() {
    const now = measure();
    return now.last ? `${outcomeNamed(now.last).label} at the end` : `${costLabel(now.kind, state.prices)} to ${goalText(goals[now.goal])}`;
  }
  const measureText = (value) => {
    const now = measure();
    if (!Number.isFinite(value)) return "–";
    return now.last ? lastText(outcomeNamed(now.last), value) : costText(now.kind, value);
  };

  function usualLogY() {
    if (state.y === "rel_gap" || state.y === "gap") return true;
    const there = curves.flatMap(({ lanes }) => lanes).filter((lane) => lane.series);
    return spans(there.flatMap((lane) => [...(outcome(lane, state.y) || [])].filter(Number.isFinite)));
  }

  // The best configuration of each method, of all or of those whose records are on the page.
  const sweptBest = (sweep, now, recorded = false) => {
    const own = sweep.curves.map((place) => curves[place]).filter((curve) => !recorded || curve.lanes[0].series);
    const methods = [...new Set(own.map((curve) => curve.method))];
    return methods.map((method) => bestOf(own.filter((curve) => curve.method === method), now, state.prices));
  };
  const runs = problem.runs.map(({ curve }) => curves[curve]);
  const best = () => problem.sweeps.flatMap((sweep) => sweptBest(sweep, measure(), true));
  let now = []; // the curves that are drawn
  const drawn = () => now;
  function placeOf(curve, shown) {
    for (const each of places.keys()) if (!shown.includes(each)) places.delete(each);
    if (!places.has(curve)) {
      const taken = new Set(places.values());
      places.set(curve, [...taken, taken.size].map((_, i) => i).find((i) => !taken.has(i)));
    }
    return places.get(curve);
  }

  // --- controls
  const xChoices = [{ items: KINDS.map((kind) => [kind, kind === "time" ? "simulated time" : DATA.costs[kind].replace(" per client", "")]) }];
  const yChoices = [{ items: outcomes.map(({ name, label }) => [name, label]) }];
  const targetChoices = [
    { group: "What it costs to reach", items: goals.map((goal, place) => [`goal:${place}`, goalText(goal)]) },
    { group: "At the last record", items: outcomes.map(({ name, label }) => [`last:${name}`, `${label}, at the end`]) },
  ].filter(({ items }) => items.length);
  const logX = tick("log x", state.logX, (on) => { state.logX = on; update(); });
  const logY = tick("log y", state.logY, (on) => { state.logY = on; update(); });
  const summary = el("summary", {});
  const speed = (name, about) => slider(about.label, about, (value) => { state.prices[name] = value; later(); });
  const link = (place) => (place > 100 ? Infinity : 10 ** (place / 10));
  const prices = el("details", { class: "prices" }, summary, el("div", { class: "controls" },
    speed("down", { label: "Price of a downlink bit", min: 0, max: 40, place: 30, value: (v) => (v === 0 ? 0 : 10 ** ((v - 30) / 10)), words: (v) => `${short(v)} × uplink` }),
    speed("upLink", { label: "Uplink of a client", min: 30, max: 101, place: 60, value: link, words: bandwidth }),
    speed("downLink", { label: "Downlink of a client", min: 30, max: 101, place: 70, value: link, words: bandwidth }),
    speed("latency", { label: "Latency of a round", min: 0, max: 500, place: 270, value: (v) => (v === 0 ? 0 : Number((10 ** (v / 100 - 4)).toPrecision(2))), words: seconds }),
    speed("gradient", { label: "A local gradient", min: 0, max: 70, place: 30, value: (v) => (v === 0 ? 0 : 10 ** (v / 10 - 6)), words: seconds })));
  root.append(facts(problem.facts),
    el("form", { class: "panel", "aria-label": `What to show of ${problem.title}`, on: { submit: (event) => event.preventDefault() } },
      el("div", { class: "controls" },
        select("Against", xChoices, state.kind, (kind) => {
          state.kind = kind;
          state.logX = logX.box.checked = kind.includes("bits");
          if (kind === "total_bits" || kind === "time") prices.open = true;
          update();
        }),
        select("Show", yChoices, state.y, (name) => { state.y = name; state.logY = logY.box.checked = usualLogY(); update(); }),
        select("Compare by", targetChoices, state.measure, (now) => { state.measure = now; update(); }),
        el("div", { class: "control ticks" }, logX, logY)),
      prices));

  // --- curves
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Curves" });
  const chart = el("div", { class: "plot", role: "img", "aria-label": `Curves of ${problem.title}, whose numbers are in the tables below` });
  const caption = el("figcaption", {});
  root.append(el("h3", {}, "Curves"), legend, el("figure", {}, chart, caption));

  function drawLegend(shown) {
    legend.replaceChildren(...shown.map((curve) => {
      const ended = endings(curve);
      return el("button", { type: "button", "aria-pressed": String(!hidden.has(curve)), title: "Show or hide; twice: this one alone", on: {
        click: () => { if (!hidden.delete(curve)) hidden.add(curve); update(); },
        dblclick: () => { for (const each of shown) if (each !== curve) hidden.add(each); hidden.delete(curve); update(); },
      } }, swatch(look(placeOf(curve, shown))), el("span", {}, curve.label + (ended ? ` (${ended})` : "")));
    }), ...(hidden.size ? [el("button", { type: "button", class: "more", on: { click: () => { hidden.clear(); update(); } } }, "Show all")] : []));
  }

  function drawChart(shown) {
    const traces = [], missing = [];
    for (const curve of shown.filter((each) => !hidden.has(each))) {
      const { colour, dash, symbol } = look(placeOf(curve, shown)), name = safe(curve.label);
      const seeds = curve.lanes.filter((lane) => lane.series).map((lane) => points(lane, state.kind, state.y, state.prices, state.logY));
      if (seeds.some((seed) => seed === null)) { missing.push(curve.label); continue; }
      const { x, y, low, high } = together(seeds, state.logY, state.logX);
      if (low) {
        const band = { mode: "lines", line: { width: 0, color: colour }, hoverinfo: "skip", meta: "band", name };
        traces.push({ ...band, x, y: low }, { ...band, x, y: high, fill: "tonexty", fillcolor: `${colour}33` });
      }
      const hover = `<b>%{fullData.name}</b><br>%{x:.4~g} ${safe(costLabel(state.kind, state.prices))}<br>%{y:.3~g}<extra></extra>`;
      traces.push({ x, y, name, meta: "curve", mode: "lines", hovertemplate: hover, line: { color: colour, dash, width: 2 } });
      const marks = along(x, y, state.logX, state.logY, places.get(curve));
      traces.push({ x: marks.map((i) => x[i]), y: marks.map((i) => y[i]), name, meta: "marks", mode: "markers", hoverinfo: "skip",
        marker: { symbol, size: 8, color: colour, line: { color: "#ffffff", width: 1 } } });
      const ended = endings(curve);
      if (ended && x.length) {
        const mark = ended.includes("diverged") ? "x-thin-open" : ended.includes("interrupted") ? "line-ns-open" : "triangle-right-open";
        traces.push({ x: x.slice(-1), y: y.slice(-1), mode: "markers", meta: "end", hoverinfo: "skip", cliponaxis: false, name,
          marker: { symbol: mark, size: 13, color: colour, line: { width: 2, color: colour } } });
      }
    }
    const now = measure(), goal = now.last ? null : goals[now.goal], target = goal && goal.name === state.y ? goal.value : null;
    const shapes = target === null ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: target, y1: target, line: { color: "#6b7280", width: 1, dash: "dot" } }];
    const shownOf = (axis) => traces.filter(({ meta }) => meta === "curve").flatMap((trace) => trace[axis]);
    draw(chart, traces, {
      shapes, uirevision: `${state.kind} ${state.y} ${state.logX} ${state.logY}`,
      xaxis: { ...axisFor(shownOf("x"), state.logX), title: { text: safe(costLabel(state.kind, state.prices)) } },
      yaxis: { ...axisFor(shownOf("y"), state.logY), title: { text: safe(outcomeNamed(state.y).long) }, ...(outcomeNamed(state.y).up && { tickformat: ".0%" }) },
    });
    caption.textContent = [
      `${capital(outcomeNamed(state.y).label)} against ${costLabel(state.kind, state.prices)}; ${seedWords(shown)}.`,
      target === null ? "" : `Dotted: the target, ${goalText(goal)}.`,
      problem.thinned ? `Thinned: of longer curves at most ${problem.thinned} records are kept, with their extremes; costs to targets are from all records.` : "",
      problem.unshown.length ? `Metrics with several numbers a record are not shown: ${problem.unshown.join(", ")}.` : "",
      missing.length ? `Not measured for ${missing.join(", ")}.` : "",
    ].filter(Boolean).join(" ");
  }

  // --- who won
  const won = el("div", {}), wonNote = el("p", { class: "small" });
  const costs = el("div", {});
  root.append(el("h3", {}, "Who won"), wonNote, won, el("h3", {}, "What each curve costs"), costs);

  function drawWinners() {
    const rows = [], [how, what] = state.measure.split(/:(.*)/s);
    const asked = how === "goal" ? COMPARED.map((kind) => [costLabel(kind, state.prices), { kind, goal: Number(what) }, (v) => costText(kind, v)]) : [];
    const ends = how === "goal" ? [] : outcomes.map((each) => [`${each.label}, at the end`, { last: each.name, up: each.up }, (v) => lastText(each, v)]);
    for (const [label, now, text] of [...asked, ...ends]) {
      const players = [...runs, ...problem.sweeps.flatMap((sweep) => sweptBest(sweep, now))];
      const rated = players.map((curve) => ({ curve, cost: price(curve, now, state.prices) })).filter(({ cost }) => Number.isFinite(cost.median));
      rated.sort((one, two) => one.cost.rank - two.cost.rank);
      const [first] = rated, equal = rated.filter(({ cost }) => cost.rank === first.cost.rank), second = rated[equal.length];
      const ratio = second && now.kind ? second.cost.median / first.cost.median : null;
      const winners = equal.length ? el("strong", {}, equal.map(({ curve }) => curve.label).join("; ")) : "–";
      const row = [label, winners, first ? text(first.cost.median) : "–", second ? second.curve.label : "–", second ? text(second.cost.median) : "–"];
      rows.push(how === "goal" ? [...row, ratio !== null && Number.isFinite(ratio) ? `${short(ratio)} ×` : "–"] : row);
    }
    wonNote.textContent = how === "goal" ? `Least cost per client to ${goalText(goals[Number(what)])}; ${seedWords(curves).split(",")[0]}; of a sweep the best configuration of each method by that measure.`
      : `The best at the last record; ${seedWords(curves).split(",")[0]}.`;
    const heads = how === "goal" ? ["measure", "first", "cost", "second", "its cost", "times as much"] : ["measure", "first", "value", "second", "its value"];
    won.replaceChildren(plainTable("who won", heads, rows, true));
  }

  let costTable = null, costKey = "";
  function drawCosts(shown) {
    const now = measure(), key = state.measure;
    if (costKey !== key) {
      costKey = key;
      const kinds = now.last ? [] : COMPARED;
      const ends = outcomes.filter(({ name }) => name !== "gap");
      costTable = sortable("what each curve costs", [
        { label: "curve", text: true, key: ({ curve }) => curve.label, show: ({ curve }) => el("span", { class: "named" }, swatch(look(placeOf(curve, drawn()))), curve.label) },
        ...kinds.map((kind) => ({ label: kind === "time" ? "simulated time" : kind === "total_bits" ? "total bits" : DATA.costs[kind].replace(/ per client|communication |local /g, ""),
          best: "low", key: ({ curve }) => price(curve, { ...now, kind }, state.prices).median, show: ({ curve }) => costText(kind, price(curve, { ...now, kind }, state.prices).median) })),
        ...(kinds.length ? [{ label: "reached", key: ({ curve }) => price(curve, now, state.prices).reached / curve.lanes.length, show: ({ curve }) => `${price(curve, now, state.prices).reached} of ${curve.lanes.length}` }] : []),
        ...ends.map((each) => ({ label: `last ${each.label}`, best: each.up ? "high" : "low", key: ({ curve }) => price(curve, { last: each.name, up: each.up }, state.prices).median,
          show: ({ curve }) => lastText(each, price(curve, { last: each.name, up: each.up }, state.prices).median) })),
        { label: "ended", text: true, key: ({ curve }) => endings(curve), show: ({ curve }) => endings(curve) || curve.lanes[0].ended },
      ], { by: { place: 1, down: false } });
      costs.replaceChildren(costTable);
    }
    costTable.update(shown.map((curve) => ({ curve })));
  }

  const sweeps = problem.sweeps.map((sweep) => sweepPart(sweep, {
    curves, state, measure, measureWords, measureText, drawn,
    pick: (curve, on) => {
      state.picked ??= new Set(now.filter((each) => !runs.includes(each)));
      state.picked[on ? "add" : "delete"](curve);
      update();
    },
    unpick: () => { state.picked = null; update(); },
  }));
  root.append(...sweeps.map(({ part }) => part));
  root.append(el("h3", {}, "How each curve was made"),
    ...problem.runs.map(({ curve, made }) => madeOf(curves[curve].label, made)),
    ...problem.sweeps.map(({ label, made }) => madeOf(`Sweep ${label}`, made)));

  function update() {
    const { down, upLink, downLink, latency, gradient } = state.prices;
    summary.textContent = `Prices and speeds: a downlink bit ${short(down)} ×, uplink ${bandwidth(upLink)}, downlink ${bandwidth(downLink)}, ${seconds(latency)} a round, ${seconds(gradient)} a gradient`;
    now = [...runs, ...(state.picked ? curves.filter((curve) => state.picked.has(curve)) : best())];
    const shown = now;
    for (const curve of shown) placeOf(curve, shown);
    drawLegend(shown);
    drawChart(shown);
    drawWinners();
    drawCosts(shown);
    for (const sweep of sweeps) sweep.update();
  }
  let waiting = 0;
  function later() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(update);
  }
  return { root, start: update, title: problem.title };
}
