// The side of one gene: what is known of it, its contexts with its partners in each, a comparison, nearest genes, gene sets.

const SIDES = [["all", "All"], ["across", "Other datasets"], ["within", "Same dataset"]];
const LOW_CERTAINTY = 0.5;
const CONTEXTS_SHOWN = 8;
const PARTNERS_SHOWN = 5;
const SETS_SHOWN = 8;

class GenePanel {
  constructor(atlas, handlers) {
    Object.assign(this, { atlas, handlers });
    this.node = $("side");
    this.side = "all";
    this.fold = false;
    this.cursor = -1;
    this.near = [];
  }

  swatch(i) { return el("i", { class: "swatch", style: { background: css(this.handlers.palettes.dataset[this.atlas.codes("dataset")[i]]) } }); }

  show(i) {
    const { atlas } = this;
    this.point = i;
    this.cursor = -1;
    this.list = el("ol", { class: "near", id: "near", "aria-label": `Genes nearest to ${atlas.gene(i)}` });
    const id = atlas.geneId(i);
    fill(this.node,
      el("div", { class: "title" },
        el("h2", { id: "gene-name" }, atlas.gene(i)),
        el("button", { class: "icon", title: "Copy the link to this view", "aria-label": "Copy link", onclick: () => copyText(location.href, "Link") }, "#"),
        el("button", { class: "icon", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.handlers.clear() }, "×")),
      el("p", { class: "soft small id" }, id !== atlas.gene(i) ? `${id} in ` : "in ", el("b", {}, atlas.of("dataset", i))),
      this.facts(i), changesOf(atlas, i, this.handlers), this.contexts(i), comparison(atlas, i, this.handlers),
      el("div", { class: "head" }, el("h3", {}, "Nearest genes"), this.ranking(), el("button", { class: "text", onclick: () => this.copyNear() }, "Copy")),
      el("p", { class: "soft small tight" }, "Bars show the cosine; the order takes out what is typical for two datasets."),
      el("div", { class: "segments", role: "group", "aria-label": "Where to look" }, SIDES.map(([side, label]) =>
        el("button", { "aria-pressed": String(side === this.side), "data-side": side, onclick: () => this.setSide(side) }, label))),
      el("label", { class: "check small" }, el("input", { type: "checkbox", id: "fold", checked: this.fold,
        onchange: (event) => { this.fold = event.target.checked; this.fill(); } }), "each gene once"),
      this.list, this.sets(i));
    this.node.scrollTop = 0;
    this.fill();
  }

  facts(i) {
    const { atlas } = this;
    const facts = Object.keys(atlas.categories).filter((c) => c !== "dataset").map((c) => [atlas.categories[c], this.handlers.name(c, atlas.codes(c)[i])]);
    for (const about of atlas.numbers) {
      if (this.handlers.changes?.all.some(({ number: name }) => name === about.name)) continue; // has a section of its own
      const value = atlas.number(about.name, i);
      if (Number.isFinite(value)) facts.push([about, about.integer ? number(Math.round(value)) : number(value, 2), about.name === "certainty" && value < LOW_CERTAINTY]);
    }
    const note = el("p", { class: "explain small", role: "note", hidden: true });
    const explain = (label, about) => (event) => {
      const open = note.hidden || note.dataset.of !== label;
      note.hidden = !open;
      note.dataset.of = label;
      note.replaceChildren(el("b", {}, label), " ", about);
      for (const term of this.node.querySelectorAll(".term")) term.setAttribute("aria-expanded", String(open && term === event.currentTarget));
    };
    return el("div", {}, el("dl", { class: "meta" }, facts.map(([{ label, about }, value, low]) => el("div", {},
      el("dt", {}, el("button", { class: "term", title: about, "aria-expanded": "false", onclick: explain(label, about) }, label)),
      el("dd", { title: value, class: low ? "low" : null }, value)))), note);
  }

  // Every dataset with this gene, the open one first, with the partners it has there.
  contexts(i) {
    const { atlas } = this;
    const others = atlas.copyScores(i).sort((a, b) => (b.score ?? 0) - (a.score ?? 0));
    if (!others.length && !atlas.partnerLists?.k) return el("p", { class: "soft small" }, "No other dataset has this gene.");
    const rows = [{ point: i, score: null }, ...others].map((entry) => this.context(entry, i));
    const more = rows.length - CONTEXTS_SHOWN;
    return el("section", { class: "contexts", "aria-label": "Contexts" },
      el("div", { class: "head" }, el("h3", {}, "Contexts"), el("span", { class: "soft small" }, plural(rows.length, "dataset"))),
      el("p", { class: "soft small tight" }, this.aboutContexts(others)),
      el("ol", { class: "near" }, rows.slice(0, CONTEXTS_SHOWN)),
      more > 0 ? el("details", {}, el("summary", { class: "small" }, `${more} more`), el("ol", { class: "near" }, rows.slice(CONTEXTS_SHOWN))) : null);
  }

  aboutContexts(others) {
    const partners = this.atlas.partnerLists?.k ? "the genes it is most co-expressed with in each; − marks negative co-expression" : "";
    if (!others.length) return "No other dataset has this gene. Below it, the genes it is most co-expressed with.";
    const known = [this.atlas.hasCopies ? "cosine of the copies" : "", partners].filter(Boolean).join(", and ");
    return known ? `${known[0].toUpperCase()}${known.slice(1)}.` : "Choose one to open it.";
  }

  context({ point, score }, i) {
    const { atlas } = this;
    const partners = atlas.partners(point)?.slice(0, PARTNERS_SHOWN) ?? [];
    const words = partners.map(({ point: p, z }) => `${z < 0 ? "−" : ""}${atlas.gene(p)}`).join(", ");
    const renamed = atlas.gene(point) !== atlas.gene(i) ? `${atlas.gene(point)} · ` : "";
    return el("li", {}, el("button", { class: "hit tall", "data-point": point, "aria-current": point === i ? "true" : null, onclick: () => this.handlers.pick(point),
      onpointerenter: () => this.handlers.point(point), onpointerleave: () => this.handlers.point(-1) },
      el("span", { class: "line" }, this.swatch(point), el("b", { class: "clip" }, atlas.of("dataset", point)),
        el("span", { class: "soft clip grow" }, renamed + atlas.of("modality", point)), doubt(atlas, point),
        point === i ? el("span", { class: "soft small" }, "open") : score === null ? null : [bar(score), el("span", { class: "score" }, score.toFixed(3))]),
      words ? el("span", { class: "with soft small clip" }, words) : null));
  }

  row(point, score) {
    const { atlas } = this;
    return el("li", {}, el("button", { class: "hit", "data-point": point, onclick: () => this.handlers.pick(point),
      onpointerenter: () => this.handlers.point(point), onpointerleave: () => this.handlers.point(-1) },
      this.swatch(point), el("b", { class: "clip" }, atlas.gene(point)), el("span", { class: "soft clip grow" }, atlas.of("dataset", point)),
      doubt(atlas, point), bar(score), el("span", { class: "score" }, score.toFixed(3))));
  }

  // Where the page may ask its server, lists are fresh, longer, and by any ranking.
  ranking() {
    if (!this.handlers.live) return null;
    return el("label", { class: "small soft" }, "by ", el("select", { id: "ranking", onchange: (event) => { this.by = event.target.value; this.fill(); } },
      ["balanced", "csls", "cosine"].map((by) => el("option", { value: by, selected: by === (this.by ?? "balanced") }, by))));
  }

  async fill() {
    const i = this.point;
    this.fillFrom(this.atlas.nearest(i, this.side));
    if (!this.handlers.live) return;
    const fresh = await this.handlers.live.neighbors(i, this.by ?? "balanced", this.side);
    if (fresh && this.point === i) this.fillFrom(fresh);
  }

  fillFrom(found) {
    const { atlas } = this;
    const seen = new Set(this.fold ? [atlas.key(this.point)] : []);
    this.near = found.filter(({ point }) => {
      if (!this.fold) return true;
      const fresh = !seen.has(atlas.key(point));
      seen.add(atlas.key(point));
      return fresh;
    });
    this.cursor = -1;
    const rows = this.near.map(({ point, score }) => this.row(point, score));
    this.list.replaceChildren(...(rows.length ? rows : [el("li", { class: "soft small" }, "None: the atlas has no such genes.")]));
    this.handlers.near(this.near);
  }

  sets(i) {
    const { sets } = this.handlers;
    if (!sets.any) return null;
    const found = sets.of(this.atlas.key(i));
    const rows = found.map((s) => setButton(sets, s, this.handlers));
    return el("section", { id: "sets-of-gene", "aria-label": "Gene sets" }, el("div", { class: "head" }, el("h3", {}, "Gene sets"), el("span", { class: "soft small" }, plural(found.length, "set"))),
      found.length ? el("ul", { class: "sets" }, rows.slice(0, SETS_SHOWN)) : el("p", { class: "soft small" }, "In none of the sets of this page."),
      rows.length > SETS_SHOWN ? el("details", {}, el("summary", { class: "small" }, `${rows.length - SETS_SHOWN} more`), el("ul", { class: "sets" }, rows.slice(SETS_SHOWN))) : null);
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
}

// A mark for points of low certainty, where it is known.
function doubt(atlas, i) {
  if (!atlas.about("certainty") || !(atlas.number("certainty", i) < LOW_CERTAINTY)) return null;
  return el("span", { class: "doubt", title: "Low certainty: two halves of the cells disagree on its co-expression" }, "uncertain");
}

const bar = (share) => el("span", { class: "bar", "aria-hidden": "true" }, el("i", { style: { width: `${Math.max(0, share) * 100}%` } }));

function setButton(sets, s, handlers, ...more) {
  return el("li", {}, el("button", { class: "hit", title: sets.names[s], onclick: () => handlers.openSet(s) },
    el("span", { class: "grow clip" }, sets.labels[s]), more.length ? more : el("span", { class: "soft small" }, plural(sets.size[s], "gene"))));
}
