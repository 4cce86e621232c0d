// Partners that a gene gains, loses and keeps between two contexts, from the co-expression statistic z in both.

const COMPARED_SHOWN = 12;

// `limit` bounds |z| where a pair is in neither list. Partners that one of the datasets lacks cannot be compared.
function embeddedPairs(atlas, a, b) {
  const [da, db] = [atlas.codes("dataset")[a], atlas.codes("dataset")[b]];
  const lists = [atlas.partners(a), atlas.partners(b)];
  const [inA, inB] = lists.map((list) => new Map(list.map((entry) => [atlas.key(entry.point), entry])));
  const missing = [0, 0];
  const rows = [];
  const other = (gene, dataset, list, key) => {
    const point = atlas.copyIn(key, dataset);
    if (point < 0) return null;
    const back = atlas.partners(point);
    const found = back.find((entry) => entry.point === gene);
    return found ? { point, z: found.z } : { point, z: null, limit: Math.min(atlas.unlisted(gene, list), atlas.unlisted(point, back)) };
  };
  for (const key of new Set([...inA.keys(), ...inB.keys()])) {
    const za = inA.get(key) ?? other(a, da, lists[0], key);
    const zb = inB.get(key) ?? other(b, db, lists[1], key);
    if (za && zb) rows.push({ point: zb.point, a: za, b: zb });
    else missing[za ? 1 : 0]++;
  }
  return { rows, missing };
}

// A pair is an edge where |z| reaches the cutoff of the dataset.
function comparePairs(atlas, a, b, { rows, missing }) {
  const cutoff = (i) => atlas.cutoffs[atlas.of("dataset", i)] ?? 0;
  const strength = (side) => Math.abs(side.z ?? side.limit ?? 0);
  const [ca, cb] = [cutoff(a), cutoff(b)];
  const result = { gained: [], lost: [], kept: [], missing };
  for (const row of rows) {
    const edge = [row.a.z !== null && Math.abs(row.a.z) >= ca, row.b.z !== null && Math.abs(row.b.z) >= cb];
    row.change = strength(row.b) - strength(row.a);
    if (edge[0] && edge[1]) result.kept.push(row);
    else if (edge[1] && row.change > 0) result.gained.push(row);
    else if (edge[0] && row.change < 0) result.lost.push(row);
  }
  result.gained.sort((p, q) => q.change - p.change);
  result.lost.sort((p, q) => p.change - q.change);
  result.kept.sort((p, q) => strength(q.a) + strength(q.b) - strength(p.a) - strength(p.b));
  return result;
}

function comparison(atlas, i, handlers) {
  const copies = atlas.copies(i);
  if (copies.length < 2 || !(atlas.partnerLists?.k || handlers.live)) return null;
  const name = (p) => atlas.of("dataset", p);
  const chosen = copies.find((p) => p !== i && name(p) === handlers.against()) ?? copies.find((p) => p !== i);
  const choose = (id, label, value, change) => el("select", { id, "aria-label": label, onchange: change },
    copies.map((p) => el("option", { value: p, selected: p === value }, name(p))));
  const body = el("div", { id: "comparison", "aria-live": "polite" });
  const show = (pairs) => fill(body, compared(atlas, i, chosen, comparePairs(atlas, i, chosen, pairs), handlers));
  if (atlas.partnerLists?.k) show(embeddedPairs(atlas, i, chosen));
  handlers.live?.contrast(i, chosen).then((pairs) => pairs && body.isConnected && show(pairs));
  return el("section", { class: "compare", "aria-label": "Comparison of two contexts" }, el("h3", {}, "Gained and lost partners"),
    el("div", { class: "versus" }, choose("from", "From this context", i, (event) => handlers.compare(Number(event.target.value), name(chosen))),
      el("span", { class: "soft", "aria-hidden": "true" }, "→"),
      choose("to", "To this context", chosen, (event) => handlers.compare(i, name(Number(event.target.value))))), body);
}

function compared(atlas, a, b, { gained, lost, kept, missing }, handlers) {
  if (a === b) return [el("p", { class: "soft small" }, "Choose two different contexts.")];
  const [from, to] = [atlas.of("dataset", a), atlas.of("dataset", b)];
  const z = (side) => (side.z === null ? `< ${side.limit.toFixed(1)}` : side.z.toFixed(1).replace("-", "−"));
  const line = (row) => el("li", {}, el("button", { class: "hit", "data-point": row.point, onclick: () => handlers.pick(row.point),
    onpointerenter: () => handlers.point(row.point), onpointerleave: () => handlers.point(-1) },
    el("b", { class: "clip grow" }, atlas.gene(row.point)), doubt(atlas, row.point), el("span", { class: "z" }, z(row.a)), el("span", { class: "soft", "aria-label": "to" }, "→"), el("span", { class: "z" }, z(row.b))));
  const part = (title, rows, kind, open) => el("details", { class: `part ${kind}`, open }, el("summary", {}, title, el("span", { class: "soft" }, ` ${number(rows.length)}`)),
    rows.length ? el("ol", { class: "near" }, rows.slice(0, COMPARED_SHOWN).map(line)) : el("p", { class: "soft small" }, "None."),
    rows.length > COMPARED_SHOWN ? el("p", { class: "soft small" }, `and ${number(rows.length - COMPARED_SHOWN)} more`) : null);
  const cells = (i) => atlas.graphs.find((g) => g.dataset === atlas.of("dataset", i))?.n_cells;
  const power = cells(a) && cells(b) ? ` z grows with the number of cells: ${number(cells(a))} in ${from}, ${number(cells(b))} in ${to}.` : "";
  const bounded = [...gained, ...lost].some((row) => row.a.z === null || row.b.z === null);
  const lacking = [[missing[1], to], [missing[0], from]].filter(([n]) => n).map(([n, where]) => `${plural(n, "partner")} ${n === 1 ? "is" : "are"} not among the genes of ${where}`);
  return [part(`Gained in ${to}`, gained, "gained", true), part(`Lost in ${to}`, lost, "lost", true), part("Kept", kept, "kept", false),
    el("p", { class: "soft small" }, bounded ? "< is a bound: the pair is not among the strongest here. " : "", `${lacking.length ? lacking.join("; ") + "." : ""}${power}`),
    el("p", { class: "actions" }, el("button", { id: "save-comparison", onclick: () => {
      const rows = [["gained", gained], ["lost", lost], ["kept", kept]].flatMap(([kind, list]) => list.map((r) => [atlas.gene(r.point), kind, z(r.a), z(r.b)].join("\t")));
      saveText([`gene\tchange\tz_${from}\tz_${to}`, ...rows].join("\n") + "\n", `${atlas.gene(a)}_${from}_${to}.tsv`);
    } }, "Save TSV"))];
}
