// Colours of the points, what they mean, and which of them are shown.

const GROUPED_FROM = 13;

class Legend {
  constructor(atlas, handlers) {
    Object.assign(this, { atlas, handlers });
    this.palettes = Object.fromEntries(Object.entries(atlas.categories).map(([name, { values }]) =>
      [name, atlas.colors[name]?.map((color) => pack(...hex(color))) ?? categoryColors(values.length)]));
    this.off = Object.fromEntries(Object.keys(atlas.categories).map((c) => [c, new Set()]));
    this.choices = [...Object.keys(atlas.categories), ...atlas.numbers.map((n) => "n:" + n.name)];
    this.coloring = "dataset";
    this.lit = -1;
    this.folded = new Set();
    $("color").append(...this.choices.map((key) => el("option", { value: key }, this.label(key))));
    $("color").addEventListener("change", (event) => handlers.color(event.target.value));
    $("fold-legend").addEventListener("click", () => this.unfold(!$("legend-card").classList.contains("open")));
  }

  label(key) { return key.startsWith("n:") ? this.atlas.about(key.slice(2)).label : this.atlas.categories[key].label; }
  about(key) { return key.startsWith("n:") ? this.atlas.about(key.slice(2)).about : this.atlas.categories[key].about; }

  // On narrow screens the legend is folded, so that it does not cover the map.
  unfold(open) {
    $("legend-card").classList.toggle("open", open);
    $("fold-legend").setAttribute("aria-expanded", String(open));
    this.handlers.folded();
  }

  name(category, v) {
    const named = category === "cluster" ? this.atlas.clusterNames?.[v] : null;
    return named ? `${this.atlas.categories.cluster.values[v]} · ${named}` : this.atlas.categories[category].values[v];
  }

  paintInto(colors) {
    const { atlas, coloring } = this;
    if (!coloring.startsWith("n:")) {
      const [codes, palette] = [atlas.codes(coloring), Uint32Array.from(this.palettes[coloring])];
      for (let i = 0; i < atlas.n; i++) colors[i] = palette[codes[i]];
      return;
    }
    const name = coloring.slice(2);
    const { low, high } = atlas.about(name);
    const ramp = Uint32Array.from({ length: 256 }, (_, t) => rampColor(t / 255));
    const grey = pack(150, 150, 155);
    for (let i = 0; i < atlas.n; i++) {
      const t = (atlas.number(name, i) - low) / (high - low || 1);
      colors[i] = Number.isFinite(t) ? ramp[Math.round(255 * Math.min(1, Math.max(0, t)))] : grey;
    }
  }

  get filters() {
    return Object.entries(this.off).filter(([, off]) => off.size).map(([category, off]) => ({ category, off, codes: this.atlas.codes(category) }));
  }

  show() {
    $("color").value = this.coloring;
    $("color").title = this.about(this.coloring);
    $("legend").replaceChildren(...(this.coloring.startsWith("n:") ? this.ramp() : this.values()));
    const others = this.filters.filter(({ category }) => category !== this.coloring);
    $("filters").replaceChildren(...others.map(({ category, off }) => {
      const hidden = [...off].map((v) => this.name(category, v));
      return el("button", { class: "filter", title: `Hidden: ${hidden.join(", ")}. Click to show all.`, onclick: () => { off.clear(); this.changed(); } },
        el("span", { class: "clip" }, `${this.atlas.categories[category].label}: ${off.size === 1 ? hidden[0] + " hidden" : `${off.size} hidden`}`), " ×");
    }));
  }

  ramp() {
    const { low, high, integer, about } = this.atlas.about(this.coloring.slice(2));
    const stops = RAMP.map((c, i) => `${c} ${(100 * i) / (RAMP.length - 1)}%`).join(",");
    return [el("div", { class: "ramp", style: { background: `linear-gradient(90deg, ${stops})` } }),
      el("div", { class: "line soft small" }, el("span", { class: "grow" }, number(low, integer ? 0 : 2)), number(high, integer ? 0 : 2)),
      el("p", { class: "soft small about" }, about)];
  }

  values() {
    const { values, about } = this.atlas.categories[this.coloring];
    const off = this.off[this.coloring];
    const all = el("div", { class: "line small all" }, el("button", { class: "text", onclick: () => { off.clear(); this.changed(); } }, "all"),
      el("button", { class: "text", onclick: () => { values.forEach((_, v) => off.add(v)); this.changed(); } }, "none"));
    const grouped = this.coloring === "dataset" && values.length >= GROUPED_FROM && new Set(this.atlas.tissues).size > 1;
    const list = grouped ? this.families() : [el("ul", { class: "keys" }, values.map((_, v) => this.row(v)))];
    return [...list, values.length > 2 ? all : "", this.coloring === "held_out" ? el("p", { class: "soft small about" }, about) : ""];
  }

  row(v) {
    const { coloring } = this;
    const name = this.name(coloring, v);
    return el("li", {}, el("button", {
      "aria-pressed": String(!this.off[coloring].has(v)), title: `${name}. Click: show or hide. Double click: only this one.`,
      onclick: () => this.toggle([v]), ondblclick: () => this.isolate([v]),
      onpointerenter: () => this.light(v), onpointerleave: () => this.light(-1),
    }, el("i", { class: "swatch", style: { background: css(this.palettes[coloring][v]) } }), el("span", { class: "grow clip" }, name),
      el("span", { class: "soft" }, number(this.atlas.counts(coloring)[v]))));
  }

  // Many datasets stand under their tissues, which fold and switch as one.
  families() {
    const of = this.atlas.families;
    const off = this.off.dataset;
    return [...of].map(([tissue, members]) => {
      const color = this.palettes.tissue?.[this.atlas.categories.tissue.values.indexOf(tissue)] ?? 0;
      const hidden = members.every((v) => off.has(v));
      const total = members.reduce((sum, v) => sum + this.atlas.counts("dataset")[v], 0);
      return el("details", { class: "family", open: !this.folded.has(tissue) && of.size <= 4,
        ontoggle: (event) => this.folded[event.target.open ? "delete" : "add"](tissue) },
      el("summary", { title: `${tissue}: ${plural(members.length, "dataset")}, ${plural(total, "point")}` }, el("i", { class: "swatch square", style: { background: css(color) } }),
        el("span", { class: "grow clip" }, tissue), el("span", { class: "soft" }, number(total)),
        el("button", { class: "text", "aria-pressed": String(!hidden), "aria-label": `Show or hide all datasets of ${tissue}`,
          onclick: (event) => { event.preventDefault(); this.toggle(members, hidden); } }, hidden ? "show" : "hide")),
      el("ul", { class: "keys" }, members.map((v) => this.row(v))));
    });
  }

  toggle(members, show = this.off[this.coloring].has(members[0])) {
    for (const v of members) if (show) this.off[this.coloring].delete(v); else this.off[this.coloring].add(v);
    this.changed();
  }

  isolate(members) {
    const off = this.off[this.coloring];
    this.atlas.categories[this.coloring].values.forEach((_, v) => off.add(v));
    for (const v of members) off.delete(v);
    this.changed();
  }

  light(v) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { if (this.lit !== v) { this.lit = v; this.handlers.light(); } }, 60);
  }

  changed() {
    this.show();
    this.handlers.filter();
  }
}
