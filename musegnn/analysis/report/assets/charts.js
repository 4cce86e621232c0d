// Loss curves: one small chart per measure, a thin line per dataset and a strong one for their mean; without rounds a table.

const CHART = { w: 460, h: 230, left: 52, right: 14, top: 12, bottom: 30 };

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw);
  const list = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) list.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return list;
}

function trainingView(atlas, page, datasetColor) {
  const { history } = atlas;
  if (!history.measures.length) {
    page.replaceChildren(el("h1", {}, "Training"), el("p", { class: "soft" }, "This run logged no training."));
    return;
  }
  if (!history.total) {
    page.replaceChildren(
      el("h1", {}, "Training"),
      el("p", { class: "soft" }, "No rounds: the vectors are those before training."),
      startTable(atlas));
    return;
  }
  page.replaceChildren(
    el("h1", {}, "Training"),
    el("p", { class: "soft" }, `${plural(history.total, "round")}. Thin lines are datasets, the strong line is their mean.`),
    el("div", { class: "charts" }, history.measures.map(({ label, every }, m) => {
      const rounds = atlas.lists.array(`rounds:${m}`);
      const flat = atlas.lists.array(`history:${m}`);
      const lines = history.lines.map((name, l) => ({ name, values: flat.subarray(l * rounds.length, (l + 1) * rounds.length) }));
      return lossChart(label, every, rounds, lines.filter((l) => l.values.some(Number.isFinite)), datasetColor, atlas);
    })));
}

function startTable(atlas) {
  const { lines, measures } = atlas.history;
  const rows = lines.map((name, l) => ({ name, values: measures.map((_, m) => atlas.lists.array(`history:${m}`)[l]) }));
  const columns = [{ label: "dataset", text: true, head: true, value: (row) => row.name, cell: (row) => row.name }];
  measures.forEach(({ label }, m) => {
    const known = (row) => (Number.isFinite(row.values[m]) ? row.values[m] : null);
    columns.push({ label, value: known, cell: (row) => (known(row) === null ? "–" : number(row.values[m])) });
  });
  return sortable(columns, rows);
}

function lossChart(measure, every, rounds, lines, datasetColor, atlas) {
  const mean = Array.from(rounds, (_, r) => {
    const known = lines.map((l) => l.values[r]).filter(Number.isFinite);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
  });
  const all = lines.flatMap((l) => [...l.values]).filter(Number.isFinite);
  let [low, high] = [all.reduce((a, b) => Math.min(a, b), Infinity), all.reduce((a, b) => Math.max(a, b), -Infinity)];
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  [low, high] = [low - pad, high + pad];
  const [r0, r1] = [rounds[0], rounds[rounds.length - 1]];
  const X = (r) => CHART.left + ((r - r0) / (r1 - r0 || 1)) * (CHART.w - CHART.left - CHART.right);
  const Y = (v) => CHART.top + ((high - v) / (high - low)) * (CHART.h - CHART.top - CHART.bottom);
  const path = (values) => {
    let d = "";
    for (let r = 0; r < rounds.length; r++)
      if (Number.isFinite(values[r])) d += `${d ? "L" : "M"}${X(rounds[r]).toFixed(1)} ${Y(values[r]).toFixed(1)}`;
    return d;
  };
  const color = (name) => {
    const code = atlas.categories.dataset.values.indexOf(name);
    return code < 0 ? "var(--soft)" : css(datasetColor(code));
  };
  const picture = svg("svg", { viewBox: `0 0 ${CHART.w} ${CHART.h}`, role: "img", "aria-label": `${measure} over rounds` },
    ticks(low, high, 4).map((v) => [
      svg("line", { class: "grid", x1: CHART.left, x2: CHART.w - CHART.right, y1: Y(v), y2: Y(v) }),
      svg("text", { x: CHART.left - 8, y: Y(v) + 4, "text-anchor": "end" }, tickText(v))]).flat(),
    ticks(r0, r1, 5).filter(Number.isInteger).map((r) =>
      svg("text", { x: X(r), y: CHART.h - 9, "text-anchor": "middle" }, String(r))));
  for (const line of lines) picture.append(svg("path", { class: "thin", d: path(line.values), stroke: lines.length > 1 ? color(line.name) : "none" }));
  picture.append(svg("path", { class: "mean", d: path(mean) }));
  const cursor = svg("line", { class: "cursor", y1: CHART.top, y2: CHART.h - CHART.bottom, visibility: "hidden" });
  picture.append(cursor);
  const last = mean.findLast(Number.isFinite);
  const read = el("span", { class: "read" }, number(last));
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * CHART.w;
    let best = 0;
    for (let r = 1; r < rounds.length; r++) if (Math.abs(X(rounds[r]) - at) < Math.abs(X(rounds[best]) - at)) best = r;
    for (const key of ["x1", "x2"]) cursor.setAttribute(key, X(rounds[best]));
    cursor.setAttribute("visibility", "visible");
    read.textContent = `round ${rounds[best]}: ${number(mean[best])}`;
  });
  picture.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read.textContent = number(last);
  });
  return el("figure", { class: "card chart" }, el("figcaption", {}, el("b", {}, measure), every > 1 ? el("span", { class: "soft small" }, `every ${every}th round`) : null, read), picture);
}

function tickText(v) {
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return v.toExponential(0);
  return String(Number(v.toPrecision(4)));
}

// Bars of a table's first measure, best on top, with the value at random.
function barChart(table) {
  const { label, title } = table.measures[0];
  const rows = table.rows.filter((row) => row.values[0] !== null).sort((a, b) => b.values[0] - a.values[0]);
  const [left, right, top, step] = [190, 60, 6, 22];
  const [w, h] = [760, top + step * rows.length + 24];
  const high = Math.max(...rows.map((row) => row.values[0]), table.chance ?? 0) || 1;
  const X = (v) => left + (v / high) * (w - left - right);
  const bars = rows.map((row, r) => {
    const y = top + r * step;
    return svg("g", { class: row.ours ? "bar ours" : "bar" }, [
      svg("text", { x: left - 8, y: y + 15, "text-anchor": "end" }, row.model),
      svg("rect", { x: left, y: y + 3, width: Math.max(0, X(row.values[0]) - left), height: step - 7, rx: 2 }),
      svg("text", { x: X(row.values[0]) + 6, y: y + 15 }, row.values[0].toFixed(high < 0.1 ? 4 : 3))]);
  });
  const picture = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": `${label} of ${plural(rows.length, "model")}` }, bars);
  if (table.chance !== null) picture.append(
    svg("line", { class: "chance", x1: X(table.chance), x2: X(table.chance), y1: top, y2: h - 22 }),
    svg("text", { x: X(table.chance) + 4, y: h - 9 }, "chance"));
  return el("figure", { class: "card bars" }, el("figcaption", {}, el("b", {}, label), el("span", { class: "soft small" }, title)), picture);
}
