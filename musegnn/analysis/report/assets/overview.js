// The side without a gene: what the atlas holds.

function overviewPanel(atlas, handlers, palettes) {
  const names = atlas.categories.dataset.values;
  const size = atlas.counts("dataset");
  const { byDataset, order } = atlas.datasetOrder;
  const top = Math.max(...size, 1);
  const facts = [[atlas.n, "vectors"], [atlas.n_keys, "genes"], [names.length, names.length === 1 ? "dataset" : "datasets"], [atlas.dim, "dimensions"]];
  const row = (d) => el("li", {},
    el("div", { class: "line" }, el("i", { class: "swatch", style: { background: css(palettes.dataset[d]) } }),
      el("span", { class: "grow clip", title: names[d] }, names[d]), el("span", { class: "soft" }, number(size[d]))),
    el("div", { class: "soft small" }, size[d] ? ["modality", "tissue", "species"].map((c) => atlas.of(c, order[byDataset[d]])).join(" · ") : ""),
    el("div", { class: "meter" }, el("i", { style: { width: `${(100 * size[d]) / top}%`, background: css(palettes.dataset[d]) } })));
  const datasets = names.length < GROUPED_FROM ? [el("ul", { class: "datasets" }, names.map((_, d) => row(d)))]
    : [...atlas.families].map(([tissue, members]) => el("details", { class: "tissue" },
      el("summary", {}, tissue, el("span", { class: "soft" }, ` ${plural(members.length, "dataset")}`)), el("ul", { class: "datasets" }, members.map(row))));
  return [
    el("p", { class: "lead" }, "Every point is one gene in one dataset. Points that are close have similar co-expression."),
    el("dl", { class: "facts" }, facts.map(([n, name]) => el("div", {}, el("dt", {}, name), el("dd", {}, number(n))))),
    el("h3", {}, "Datasets"), ...datasets,
    ...changedGenes(atlas, handlers), ...setList(handlers),
    ...(atlas.examples.length ? [el("h3", {}, "Genes that datasets agree on"), el("p", { class: "chips", id: "examples" },
      atlas.examples.map((i) => el("button", { class: "chip", onclick: () => handlers.pick(i) }, atlas.gene(i))))] : []),
    el("p", { class: "soft small hint" }, "Click a point, or press ", el("kbd", {}, "/"), " to search; paste a list there to see many genes. Hold ",
      el("kbd", {}, "Shift"), " and drag to draw around points. ", el("kbd", {}, "?"), " lists all keys."),
  ];
}

// Gene sets that came with the page, by name; one opens as a list, and the map shows its genes.
function setList(handlers) {
  const { sets } = handlers;
  if (!sets.any) return [];
  const list = el("ul", { class: "sets" });
  const write = () => {
    const order = sets.labels.map((_, s) => s).sort((a, b) => (sets.labels[a] < sets.labels[b] ? -1 : 1));
    list.replaceChildren(...order.map((s) => setButton(sets, s, handlers)));
  };
  return [el("details", { class: "all-sets", id: "all-sets", ontoggle: (event) => event.target.open && !list.firstChild && write() },
    el("summary", {}, "Gene sets", el("span", { class: "soft" }, ` ${number(sets.names.length)}`)), list)];
}
