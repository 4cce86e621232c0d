// The side: what the atlas holds, one gene, or a selection.

const SIDES = [["all", "All"], ["across", "Other datasets"], ["within", "Same dataset"]];

class SidePanel {
  constructor(atlas, handlers) {
    this.atlas = atlas;
    this.handlers = handlers;
    this.node = $("side");
    this.side = "all";
    this.fold = false;
    this.cursor = -1;
    this.near = [];
  }

  swatch(word) { return el("i", { class: "swatch", style: { background: css(word) } }); }

  color(i) { return this.handlers.datasetColor(this.atlas.arrays.dataset[i]); }

  overview() {
    const { atlas } = this;
    const codes = atlas.categories.dataset.values;
    const size = new Array(codes.length).fill(0);
    const first = new Array(codes.length).fill(-1);
    for (let i = 0; i < atlas.n; i++) {
      const d = atlas.arrays.dataset[i];
      if (!size[d]++) first[d] = i;
    }
    const top = Math.max(...size, 1);
    const facts = [[atlas.n, "vectors"], [atlas.n_keys, "genes"], [codes.length, codes.length === 1 ? "dataset" : "datasets"], [atlas.dim, "dimensions"]];
    this.near = [];
    this.node.replaceChildren(
      el("p", { class: "lead" }, "Every point is one gene in one dataset. Points that are close have similar co-expression."),
      el("dl", { class: "facts" }, facts.map(([n, name]) => el("div", {}, el("dt", {}, name), el("dd", {}, number(n))))),
      el("h3", {}, "Datasets"),
      el("ul", { class: "datasets" }, codes.map((name, d) => el("li", {},
        el("div", { class: "line" }, this.swatch(this.handlers.datasetColor(d)), el("span", { class: "grow clip", title: name }, name),
          el("span", { class: "soft" }, number(size[d]))),
        el("div", { class: "soft small" }, ["modality", "tissue", "species"].map((c) => atlas.of(c, first[d])).join(" · ")),
        el("div", { class: "meter" }, el("i", { style: { width: `${(100 * size[d]) / top}%`, background: css(this.handlers.datasetColor(d)) } }))))),
      ...(atlas.examples.length ? [el("h3", {}, "Genes that datasets agree on"), el("p", { class: "chips", id: "examples" },
        atlas.examples.map((i) => el("button", { class: "chip", onclick: () => this.handlers.pick(i) }, atlas.gene(i))))] : []),
      el("p", { class: "soft small hint" }, "Click a point, or press ", el("kbd", {}, "/"), " to search. Hold ",
        el("kbd", {}, "Shift"), " and drag to select many. ", el("kbd", {}, "?"), " lists all keys."));
  }

  gene(i) {
    const { atlas } = this;
    const id = atlas.geneId(i);
    const facts = Object.keys(atlas.categories).map((c) => [atlas.categories[c].label, atlas.of(c, i)]);
    for (const { name, label, integer } of atlas.numbers) {
      const value = atlas.arrays["n:" + name][i];
      if (Number.isFinite(value)) facts.push([label, integer ? number(Math.round(value)) : number(value)]);
    }
    this.point = i;
    this.cursor = -1;
    this.list = el("ol", { class: "near", id: "near", "aria-label": `Genes nearest to ${atlas.gene(i)}` });
    this.node.replaceChildren(
      el("div", { class: "title" },
        el("h2", { id: "gene-name" }, atlas.gene(i)),
        el("button", { class: "icon", title: "Copy the link to this gene", "aria-label": "Copy link", onclick: () => copyText(location.href, "Link") }, "#"),
        el("button", { class: "icon", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.handlers.clear() }, "×")),
      id !== atlas.gene(i) ? el("p", { class: "soft small id" }, id) : "",
      el("dl", { class: "meta" }, facts.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", { title: v }, v)))),
      this.copies(i),
      el("div", { class: "head" }, el("h3", {}, "Nearest genes"),
        el("button", { class: "text", onclick: () => this.copyNear() }, "Copy")),
      el("p", { class: "soft small tight" }, "Bars show the cosine; the order takes out what is typical for two datasets."),
      el("div", { class: "segments", role: "group", "aria-label": "Where to look" }, SIDES.map(([side, label]) =>
        el("button", { "aria-pressed": String(side === this.side), "data-side": side, onclick: () => this.setSide(side) }, label))),
      el("label", { class: "check small" }, el("input", { type: "checkbox", id: "fold", checked: this.fold,
        onchange: (event) => { this.fold = event.target.checked; this.fill(); } }), "each gene once"),
      this.list);
    this.node.scrollTop = 0;
    this.fill();
  }

  copies(i) {
    const scores = this.atlas.copyScores(i).sort((a, b) => b.score - a.score);
    if (!scores.length) return el("p", { class: "soft small" }, "No other dataset has this gene.");
    return el("details", { class: "copies", open: scores.length <= 8 },
      el("summary", {}, "The same gene elsewhere ", el("span", { class: "soft" }, plural(scores.length, "dataset"))),
      el("ol", { class: "near" }, scores.map(({ point, score }) => this.row(point, score, this.atlas.of("dataset", point),
        this.atlas.gene(point) === this.atlas.gene(i) ? this.atlas.of("modality", point) : this.atlas.gene(point)))));
  }

  row(point, score, name, place) {
    return el("li", {}, el("button", { class: "hit", "data-point": point, onclick: () => this.handlers.pick(point),
      onpointerenter: () => this.handlers.point(point), onpointerleave: () => this.handlers.point(-1) },
      this.swatch(this.color(point)), el("b", { class: "clip" }, name), el("span", { class: "soft clip grow" }, place),
      el("span", { class: "bar", "aria-hidden": "true" }, el("i", { style: { width: `${Math.max(0, score) * 100}%` } })),
      el("span", { class: "score" }, score.toFixed(3))));
  }

  fill() {
    const { atlas } = this;
    const seen = new Set(this.fold ? [atlas.arrays.key[this.point]] : []);
    this.near = atlas.nearest(this.point, this.side).filter(({ point }) => {
      if (!this.fold) return true;
      const fresh = !seen.has(atlas.arrays.key[point]);
      seen.add(atlas.arrays.key[point]);
      return fresh;
    });
    this.cursor = -1;
    const rows = this.near.map(({ point, score }) => this.row(point, score, atlas.gene(point), atlas.of("dataset", point)));
    this.list.replaceChildren(...(rows.length ? rows : [el("li", { class: "soft small" }, "None: the atlas has no such genes.")]));
    this.handlers.near(this.near);
  }

  setSide(side) {
    this.side = side;
    for (const button of this.node.querySelectorAll("[data-side]"))
      button.setAttribute("aria-pressed", String(button.dataset.side === side));
    this.fill();
  }

  step(by) {
    if (!this.near.length) return;
    this.cursor = Math.min(this.near.length - 1, Math.max(0, this.cursor + by));
    const button = this.list.children[this.cursor].firstChild;
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest" });
    this.handlers.point(this.near[this.cursor].point);
  }

  copyNear() {
    const { atlas } = this;
    const rows = this.near.map(({ point, score }, n) =>
      [n + 1, atlas.gene(point), atlas.geneId(point), atlas.of("dataset", point), score.toFixed(4)].join("\t"));
    copyText(["rank\tgene\tgene_id\tdataset\tcosine", ...rows].join("\n") + "\n", plural(rows.length, "row"));
  }

  selection(points) {
    const { atlas } = this;
    const names = [...new Set(points.map((i) => atlas.gene(i)))].sort((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
    const shown = names.slice(0, 300);
    const composition = Object.keys(atlas.categories).map((c) => this.composition(c, points)).filter(Boolean);
    this.near = [];
    this.node.replaceChildren(
      el("div", { class: "title" }, el("h2", {}, "Selection"),
        el("button", { class: "icon", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.handlers.clear() }, "×")),
      el("p", { class: "soft", id: "selected" }, `${plural(points.length, "point")}, ${plural(names.length, "gene")}`),
      el("p", { class: "actions" },
        el("button", { class: "strong", id: "copy-genes", onclick: () => copyText(names.join("\n") + "\n", plural(names.length, "gene")) }, "Copy genes"),
        el("button", { onclick: () => this.copyTable(points) }, "Copy table")),
      el("h3", {}, "What it is made of"),
      el("p", { class: "soft small tight" }, "Share of the selection; × compares it with the whole atlas."),
      ...composition,
      el("h3", {}, "Genes"),
      el("p", { class: "chips", id: "selected-genes" }, shown.map((name) =>
        el("button", { class: "chip", onclick: () => this.handlers.pick(points.find((i) => atlas.gene(i) === name)) }, name)),
        names.length > shown.length ? el("span", { class: "soft small" }, `and ${number(names.length - shown.length)} more (copy to see all)`) : null));
    this.node.scrollTop = 0;
  }

  // Share of each value in the selection beside its share in the atlas; the fold says what the selection prefers.
  composition(category, points) {
    const { values, label } = this.atlas.categories[category];
    if (values.length < 2) return null;
    const codes = this.atlas.arrays[category];
    const [here, all] = [new Array(values.length).fill(0), new Array(values.length).fill(0)];
    for (const i of points) here[codes[i]]++;
    for (let i = 0; i < this.atlas.n; i++) all[codes[i]]++;
    const colors = this.handlers.colorsOf(category);
    const order = values.map((_, v) => v).filter((v) => here[v]).sort((a, b) => here[b] - here[a]);
    const rows = order.slice(0, 6).map((v) => {
      const fold = (here[v] / points.length) / (all[v] / this.atlas.n);
      return el("li", { title: `${here[v]} of ${all[v]} points` },
        el("div", { class: "line" }, this.swatch(colors[v]), el("span", { class: "grow clip" }, values[v]),
          el("span", { class: "soft" }, `${((100 * here[v]) / points.length).toFixed(0)} %`), el("span", { class: "fold" }, `${fold.toFixed(1)}×`)),
        el("div", { class: "meter" }, el("i", { style: { width: `${(100 * here[v]) / points.length}%`, background: css(colors[v]) } })));
    });
    return el("details", { open: category === "dataset" || category === "cluster" },
      el("summary", {}, label), el("ul", { class: "datasets" }, rows));
  }

  copyTable(points) {
    const { atlas } = this;
    const names = Object.keys(atlas.categories);
    const rows = points.map((i) => [atlas.gene(i), atlas.geneId(i), ...names.map((c) => atlas.of(c, i))].join("\t"));
    copyText([["gene", "gene_id", ...names].join("\t"), ...rows].join("\n") + "\n", plural(rows.length, "row"));
  }
}
