// Evaluation, graphs and settings.

// A table whose columns sort by click: columns are {label, title, value(row), cell(row), text}.
function sortable(columns, rows, options = {}) {
  const body = el("tbody");
  let [by, down] = [-1, true];
  const fill = () => {
    const sorted = [...rows];
    if (by >= 0) {
      const value = columns[by].value;
      const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
      sorted.sort((p, q) => {
        const [a, b] = [value(p), value(q)];
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? compare(b, a) : compare(a, b);
      });
    }
    body.replaceChildren(...sorted.map((row) => el("tr", { class: options.rowClass?.(row) || null }, columns.map((c) => {
      const content = c.cell(row);
      return content instanceof HTMLTableCellElement ? content : el(c.head ? "th" : "td", { class: c.text ? "text" : null, scope: c.head ? "row" : null }, content);
    }))));
    heads.forEach((th, n) => th.setAttribute("aria-sort", n === by ? (down ? "descending" : "ascending") : "none"));
  };
  const heads = columns.map((c, n) => el("th", { scope: "col", class: c.text ? "text" : null, title: c.title }, el("button", { onclick: () => {
    [by, down] = by === n ? [n, !down] : [n, !c.text];
    fill();
  } }, c.label, c.better ? el("span", { class: "soft" }, c.better > 0 ? " ↑" : " ↓") : null)));
  fill();
  return el("div", { class: "scroll card" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), body));
}

function evaluationView(atlas, page) {
  const tables = atlas.evaluation;
  if (!tables.length) {
    page.replaceChildren(el("h1", {}, "Evaluation"), el("p", { class: "soft" }, "This run has not been evaluated."));
    return;
  }
  page.replaceChildren(el("h1", {}, "Evaluation"),
    el("p", { class: "soft" }, "The trained model beside baselines. The best value of a column is strong; ↑ more is better, ↓ less is better, no arrow: neither."),
    ...tables.map((table) => evaluationTable(table)));
}

function evaluationTable(table) {
  const columns = [{ label: "model", text: true, head: true, value: (row) => row.model, cell: (row) => el("span", { title: row.about || null }, row.model) }];
  table.measures.forEach((measure, m) => {
    if (table.rows.some((row) => typeof row.values[m] === "string")) {
      columns.push({ label: measure.label, title: measure.title, text: true, value: (row) => row.values[m] ?? "", cell: (row) => el("span", { class: "soft" }, row.values[m] ?? "") });
      return;
    }
    const known = table.rows.map((row) => row.values[m]).filter((v) => v !== null);
    const [low, high] = [Math.min(...known, 0), Math.max(...known)];
    const digits = known.every(Number.isInteger) ? 0 : high >= 10 ? 1 : high < 0.1 ? 4 : 3;
    const best = measure.better > 0 ? high : measure.better < 0 ? Math.min(...known) : null;
    columns.push({
      label: measure.label, title: measure.title, better: measure.better, value: (row) => row.values[m],
      cell: (row) => {
        const v = row.values[m];
        if (v === null) return el("td", { class: "soft" }, "–");
        const share = high > low ? ((v - low) / (high - low)) * 100 : 0;
        return el("td", { class: best !== null && v === best && known.length > 1 ? "best" : null },
          el("div", { class: "cell" }, el("i", { style: { width: `${share}%` } }), el("span", {}, v.toFixed(digits))));
      },
    });
  });
  const heading = table.title ? [el("h2", {}, table.title)] : [];
  const note = table.note ? [el("p", { class: "soft small" }, table.note)] : [];
  const figure = table.chance === undefined ? [] : [barChart(table)];
  return el("section", {}, heading, note, figure, sortable(columns, table.rows, { rowClass: (row) => (row.ours ? "ours" : "") }));
}

const percent = (v, digits = 1) => (v === null ? "–" : `${(100 * v).toFixed(digits)} %`);

function graphsView(atlas, page, datasetColor) {
  const rows = atlas.graphs;
  if (!rows.length) {
    page.replaceChildren(el("h1", {}, "Graphs"), el("p", { class: "soft" }, "No report of the graphs came with these embeddings."));
    return;
  }
  const swatch = (name) => {
    const code = atlas.categories.dataset.values.indexOf(name);
    return el("i", { class: "swatch", style: { background: code < 0 ? "transparent" : css(datasetColor(code)) } });
  };
  const plain = (key, label, title) => ({ label, title, value: (r) => r[key], cell: (r) => number(r[key], 1) });
  const share = (key, label, title) => ({ label, title, value: (r) => r[key], cell: (r) =>
    el("div", { class: "cell" }, el("i", { style: { width: `${Math.min(100, 100 * (r[key] ?? 0))}%` } }), el("span", {}, percent(r[key]))) });
  const word = (key, label) => ({ label, text: true, value: (r) => r[key], cell: (r) => r[key] });
  const columns = [
    { label: "dataset", text: true, head: true, value: (r) => r.dataset, cell: (r) => el("span", { class: "line" }, swatch(r.dataset), r.dataset) },
    word("modality", "modality"), word("tissue", "tissue"), word("species", "species"),
    plain("n_cells", "cells", "Cells used, after quality control"),
    plain("n_genes", "genes", "Genes of the graph"),
    plain("n_edges", "edges", "Pairs of genes joined, each counted once"),
    share("density", "density", "Edges over all pairs of genes"),
    share("negative_share", "negative", "Share of edges with a negative sign"),
    plain("mean_degree", "mean degree", "Edges per gene"),
    plain("n_clamped", "clamped", "Genes whose variance estimate is negative: less variable than Poisson noise"),
    { label: "dropped, and why", text: true, title: "Cells and genes left out", value: (r) => r.dropped.reduce((a, d) => a + d.count, 0), cell: droppedCell },
  ];
  const mean = (key) => rows.reduce((a, r) => a + (r[key] ?? 0), 0) / rows.length;
  page.replaceChildren(el("h1", {}, "Graphs"),
    el("p", { class: "soft" }, `One co-expression graph per dataset: ${plural(rows.length, "graph")}, ${number(rows.reduce((a, r) => a + (r.n_cells ?? 0), 0))} cells, mean density ${percent(mean("density"))}, mean share of negative edges ${percent(mean("negative_share"))}.`),
    sortable(columns, rows),
    ...rows.filter((r) => r.warnings.length).map((r) => el("div", { class: "warning" }, el("b", {}, r.dataset), el("ul", {}, r.warnings.map((w) => el("li", {}, w))))));
}

function droppedCell(row) {
  const some = row.dropped.filter((d) => d.count > 0);
  if (!some.length) return el("span", { class: "soft" }, "nothing");
  const total = (what) => some.filter((d) => d.what === what).reduce((a, d) => a + d.count, 0);
  const sums = [["cell", total("cells")], ["gene", total("genes")]].filter(([, n]) => n).map(([what, n]) => plural(n, what));
  return el("details", { class: "dropped" }, el("summary", {}, sums.join(", ")), el("ul", {}, some.map((d) =>
    el("li", {}, el("b", {}, number(d.count)), ` ${d.what} `, el("span", { class: "soft" }, d.why)))));
}

function settingsView(atlas, page) {
  page.replaceChildren(el("h1", {}, "Settings"),
    el("h3", {}, "How this page was made"),
    el("ul", { class: "notes" }, atlas.notes.map((note) => el("li", {}, note))),
    el("h3", {}, "Configuration of the run, defaults included"),
    el("div", { class: "card code" }, el("button", { class: "text", onclick: () => copyText(atlas.config, "Configuration") }, "Copy"), el("pre", {}, atlas.config)));
}
