// The side of many genes: a selection on the map, a pasted list, or a gene set.

const GENES_SHOWN = 300;
const ENRICHED_SHOWN = 10;

class ListPanel {
  constructor(atlas, handlers) {
    Object.assign(this, { atlas, handlers });
    this.node = $("side");
  }

  // `points` are all points of the list; `missing` are names that no dataset has.
  show({ title, points, missing = [], about = "" }) {
    const { atlas } = this;
    const names = this.names(points);
    const genes = new Set(Array.from(names, (code) => atlas.keyOf[code])).size;
    const enriched = this.enrichment(points);
    fill(this.node,
      el("div", { class: "title" }, el("h2", { class: title.length > 24 ? "long" : null }, title),
        el("button", { class: "icon", title: "Copy the link to this view", "aria-label": "Copy link", onclick: () => copyText(location.href, "Link") }, "#"),
        el("button", { class: "icon", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.handlers.clear() }, "×")),
      el("p", { class: "soft", id: "selected" }, `${plural(points.length, "point")}, ${plural(genes, "gene")}`, about ? ` · ${about}` : ""),
      missing.length ? el("p", { class: "missing small", id: "missing" }, `Not here: ${missing.slice(0, 30).join(", ")}${missing.length > 30 ? ` and ${missing.length - 30} more` : ""}`) : null,
      el("p", { class: "actions" },
        el("button", { class: "strong", id: "copy-genes", onclick: () => copyText(names.map((n) => atlas.genes[n]).join("\n") + "\n", plural(names.length, "gene")) }, "Copy genes"),
        el("button", { id: "save-table", onclick: () => saveText(this.table(points), "genes.tsv") }, "Genes TSV"),
        enriched ? el("button", { id: "save-enrichment", onclick: () => saveText(this.enrichedTable(enriched.rows), "enrichment.tsv") }, "Sets TSV") : null),
      ...(enriched ? [el("h3", {}, "Enriched gene sets"), enriched.node] : []),
      el("h3", {}, "What it is made of"),
      el("p", { class: "soft small tight" }, "Share of the selection; × compares it with the whole atlas."),
      ...Object.keys(atlas.categories).map((c) => this.composition(c, points)),
      el("h3", {}, "Genes"),
      el("p", { class: "chips", id: "selected-genes" }, names.slice(0, GENES_SHOWN).map((name) => el("button", { class: "chip", "data-name": name,
        onclick: () => this.handlers.pick(points.find((i) => atlas.name[i] === name)) }, atlas.genes[name])),
        names.length > GENES_SHOWN ? el("span", { class: "soft small" }, `and ${number(names.length - GENES_SHOWN)} more (copy to see all)`) : null));
    this.node.scrollTop = 0;
  }

  // Codes of the names of points, in alphabetical order, each text once.
  names(points) {
    const { atlas } = this;
    const { name } = atlas;
    const seen = new Uint8Array(atlas.genes.length);
    for (let p = 0; p < points.length; p++) seen[name[points[p]]] = 1;
    const codes = [];
    for (let code = 0; code < seen.length; code++) if (seen[code] && atlas.genes[code] !== atlas.genes[codes.at(-1)]) codes.push(code);
    return codes;
  }

  enrichment(points) {
    const { sets } = this.handlers;
    if (!sets.any) return null;
    const rows = sets.enrich(sets.markPoints(points)).filter((row) => row.overlap > 0);
    const good = rows.filter((row) => row.q < 0.05 && row.overlap > 1);
    const list = good.slice(0, ENRICHED_SHOWN).map((row) => setButton(sets, row.set, this.handlers,
      el("span", { class: "soft small" }, `${row.overlap} of ${row.size}`), el("span", { class: "fold" }, `${row.fold.toFixed(1)}×`),
      el("span", { class: "score", title: `p = ${row.p.toExponential(1)}` }, row.q < 1e-3 ? row.q.toExponential(0) : row.q.toFixed(3))));
    const head = el("p", { class: "line soft small enriched-head" }, el("span", { class: "grow" }, "gene set"), el("span", {}, "genes"), el("span", { class: "fold" }, "fold"), el("span", { class: "score" }, "q"));
    return { rows, node: el("div", { id: "enriched" }, good.length ? [head, el("ul", { class: "sets" }, list),
      good.length > list.length ? el("p", { class: "soft small" }, `and ${number(good.length - list.length)} more with q below .05`) : null]
      : el("p", { class: "soft small" }, "No set with q below .05.")) };
  }

  enrichedTable(rows) {
    const { names } = this.handlers.sets;
    return ["set\tgenes\tsize\tfold\tp\tq", ...rows.map((r) => [names[r.set], r.overlap, r.size, r.fold.toFixed(3), r.p.toExponential(4), r.q.toExponential(4)].join("\t"))].join("\n") + "\n";
  }

  table(points) {
    const { atlas } = this;
    const names = Object.keys(atlas.categories);
    const numbers = atlas.numbers.map((n) => n.name);
    const value = (name, i) => (Number.isFinite(atlas.number(name, i)) ? String(Number(atlas.number(name, i).toFixed(4))) : "");
    const rows = Array.from(points, (i) => [atlas.gene(i), atlas.geneId(i), ...names.map((c) => atlas.of(c, i)), ...numbers.map((name) => value(name, i))].join("\t"));
    return [["gene", "gene_id", ...names, ...numbers].join("\t"), ...rows].join("\n") + "\n";
  }

  // Share of each value in the selection beside its share in the atlas; the fold says what the selection prefers.
  composition(category, points) {
    const { atlas } = this;
    const { values, label } = atlas.categories[category];
    if (values.length < 2) return null;
    const [all, here] = [atlas.counts(category), atlas.countsAmong(points, category)];
    const colors = this.handlers.palettes[category];
    const order = values.map((_, v) => v).filter((v) => here[v]).sort((a, b) => here[b] - here[a]);
    const rows = order.slice(0, 6).map((v) => {
      const fold = (here[v] / points.length) / (all[v] / atlas.n);
      return el("li", { title: `${here[v]} of ${all[v]} points` },
        el("div", { class: "line" }, el("i", { class: "swatch", style: { background: css(colors[v]) } }), el("span", { class: "grow clip" }, this.handlers.name(category, v)),
          el("span", { class: "soft" }, `${((100 * here[v]) / points.length).toFixed(0)} %`), el("span", { class: "fold" }, `${fold.toFixed(1)}×`)),
        el("div", { class: "meter" }, el("i", { style: { width: `${(100 * here[v]) / points.length}%`, background: css(colors[v]) } })));
    });
    return el("details", { open: category === "dataset" || category === "cluster" }, el("summary", {}, label), el("ul", { class: "datasets" }, rows));
  }
}
