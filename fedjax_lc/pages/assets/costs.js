// What things cost: prices of a record, targets, medians over seeds, and curves of several seeds as one with a band.

const BASE = ["step", "bits_up", "bits_down", "grads", "rounds"];
const KINDS = ["bits_up", "total_bits", "rounds", "grads", "time", "bits_down", "step"];
const COMPARED = ["bits_up", "total_bits", "rounds", "grads", "time"];

const usualPrices = () => ({ down: 1, upLink: 1e6, downLink: 1e7, latency: 0.05, gradient: 0.001 });

// One cost of a record, whose base prices are given in the order of BASE.
function costOf(kind, prices, [step, up, down, grads, rounds]) {
  if (kind === "total_bits") return up + prices.down * down;
  if (kind === "time") {
    return prices.latency * rounds + up / prices.upLink + down / prices.downLink + prices.gradient * grads;
  }
  return { step, bits_up: up, bits_down: down, grads, rounds }[kind];
}

function costLabel(kind, prices) {
  if (kind === "time") return "simulated time (s)";
  return DATA.costs[kind] + (kind === "total_bits" ? ` (up + ${short(prices.down)} × down)` : "");
}

const costText = (kind, value) => (Number.isFinite(value) ? (kind === "time" ? seconds(value) : short(value)) : "–");

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float64Array(bytes.buffer);
}

// The records of a lane by name, decoded once.
function records(lane) {
  lane.decoded ??= Object.fromEntries(Object.entries(lane.series).map(([name, text]) => [name, decode(text)]));
  return lane.decoded;
}

function outcome(lane, name) {
  const { value, ...others } = records(lane);
  if (name === "value") return value;
  if (name === "gap" || name === "rel_gap") {
    const span = name === "gap" ? 1 : value[0] - lane.f_star;
    return value.map((each) => (each - lane.f_star) / span);
  }
  return others[name];
}

const spans = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) >= 100 * Math.min(...values);

// Points {x, y} of a lane that the y axis can show; null where the lane has no such outcome.
function points(lane, kind, name, prices, logY) {
  const series = records(lane), y = outcome(lane, name);
  if (!y) return null;
  const made = { x: [], y: [] };
  for (let i = 0; i < y.length; i += 1) {
    if (Number.isFinite(y[i]) && (y[i] > 0 || !logY)) {
      made.x.push(costOf(kind, prices, BASE.map((base) => series[base][i])));
      made.y.push(y[i]);
    }
  }
  return made;
}

// Quantile of sorted values, linear in between; values may be infinite.
function quantile(sorted, share) {
  const place = share * (sorted.length - 1), below = Math.floor(place + 1e-9), part = place - below;
  if (part < 1e-9) return sorted[below];
  return (1 - part) * sorted[below] + part * sorted[below + 1];
}

function spread(values) {
  const sorted = [...values].sort((one, two) => one - two);
  return { median: quantile(sorted, 0.5), low: sorted[0], high: sorted[sorted.length - 1] };
}

// y at x, linear in (x, y); of records that cost nothing, the latest. x is not decreasing.
function interpolated({ x, y }, grid) {
  let place = 0;
  return grid.map((at) => {
    while (place + 1 < x.length && x[place + 1] <= at) place += 1;
    if (place + 1 >= x.length || x[place] >= at) return y[place];
    return y[place] + ((y[place + 1] - y[place]) * (at - x[place])) / (x[place + 1] - x[place]);
  });
}

// The median of seeds and its band over the range that all seeds cover, as the package's pictures have them.
function together(seeds, logY, logX) {
  if (seeds.length === 1) return { x: seeds[0].x, y: seeds[0].y, low: null, high: null };
  if (seeds.some(({ x }) => x.length === 0)) return { x: [], y: [], low: [], high: [] };
  const from = Math.max(...seeds.map(({ x }) => x[0])), to = Math.min(...seeds.map(({ x }) => x[x.length - 1]));
  let grid = [...new Set(seeds.flatMap(({ x }) => x))].filter((x) => x >= from && x <= to && (x > 0 || !logX)).sort((a, b) => a - b);
  const most = 1500;
  if (grid.length > most) grid = grid.filter((_, i) => i % Math.ceil(grid.length / most) === 0 || i === grid.length - 1);
  const [there, back] = logY ? [Math.log, Math.exp] : [(v) => v, (v) => v];
  const rows = seeds.map(({ x, y }) => interpolated({ x, y: y.map(there) }, grid));
  const levels = grid.map((_, i) => spread(rows.map((row) => row[i])));
  const pick = (name) => levels.map((level) => back(level[name]));
  return { x: grid, y: pick("median"), low: pick("low"), high: pick("high") };
}

// The places of eight marks, evenly spaced along a curve as it is drawn, and shifted for each place in the legend.
function along(x, y, logX, logY, place) {
  const way = new Array(x.length).fill(0);
  for (const [values, log] of [[x, logX], [y, logY]]) {
    const seen = values.map((value) => (log ? (value > 0 ? Math.log(value) : NaN) : value)), first = seen.find(Number.isFinite);
    let far = 0;
    const reached = seen.map((value) => (far = Math.max(far, Number.isFinite(value) ? Math.abs(value - first) : 0)));
    reached.forEach((each, i) => { way[i] += each / (far || 1); });
  }
  const shift = 0.2 + 0.6 * ((0.618 * place) % 1), end = way[way.length - 1];
  const marks = [...Array(8).keys()].map((i) => way.findIndex((each) => each >= (end * (i + shift)) / 8));
  return [...new Set(marks)].filter((i) => i >= 0 && (x[i] > 0 || !logX));
}

// What a curve costs by a measure {kind, goal} or ends with {last: outcome}: median, low, high, seeds and how many reached.
function price(curve, measure, prices) {
  const values = curve.lanes.map((lane) => {
    if (lane.ended === "diverged") return Infinity;
    if (measure.last) {
      const value = lane.last[measure.last];
      return value === null || value === undefined ? Infinity : measure.up ? -value : value;
    }
    const hit = lane.hits[measure.goal];
    return hit ? costOf(measure.kind, prices, hit) : Infinity;
  });
  const { median, low, high } = spread(values), sign = measure.up ? -1 : 1;
  const reached = values.filter(Number.isFinite).length;
  const shown = (value) => (Number.isFinite(value) ? sign * value : Infinity);
  return { median: shown(median), low: shown(measure.up ? high : low), high: shown(measure.up ? low : high), rank: median,
    reached, seeds: values.length, diverged: curve.lanes.filter((lane) => lane.ended === "diverged").length };
}

// The best of curves by a measure; of those that never reach it, the one that ends lowest in F.
function bestOf(curves, measure, prices) {
  const end = (curve) => spread(curve.lanes.map((lane) =>
    lane.ended === "diverged" || lane.last.value === null ? Infinity : lane.last.value)).median;
  const rated = curves.map((curve) => ({ curve, cost: price(curve, measure, prices).rank, end: end(curve) }));
  return rated.reduce((one, two) =>
    two.cost < one.cost || (two.cost === one.cost && !Number.isFinite(one.cost) && two.end < one.end) ? two : one).curve;
}

function endings(curve) {
  const words = ["capped", "diverged", "interrupted"].map((word) => {
    const count = curve.lanes.filter((lane) => lane.ended === word).length;
    return count === 0 ? "" : count === curve.lanes.length ? word : `${count} of ${count === 0 ? 0 : curve.lanes.length} ${word}`;
  });
  return words.filter(Boolean).join(", ");
}

function seedWords(curves) {
  const most = Math.max(1, ...curves.map((curve) => curve.lanes.length));
  return most === 1 ? "one seed" : `median of up to ${most} seeds, band from least to most`;
}
