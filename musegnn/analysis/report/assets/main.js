// Wiring: colours, filters, selection, address, keys, theme and tabs.

const KEYS = [
  ["/", "search"], ["↑ ↓", "walk the nearest genes"], ["Enter", "go to that gene"], ["← →", "the same gene in another dataset"],
  ["Esc", "close, clear"], ["+ −", "closer, farther"], ["0", "whole map"], ["← ↑ → ↓", "move the map, when no gene is open"],
  ["V L B", "move, lasso, box"], ["Shift + drag", "lasso"], ["C", "next colouring"], ["T", "light or dark"],
  ["1 … 5", "map, training, evaluation, graphs, settings"], ["?", "this list"],
];
const VIEWS = ["map", "training", "evaluation", "graphs", "settings"];

class Page {
  constructor(atlas) {
    this.atlas = atlas;
    this.palettes = Object.fromEntries(Object.entries(atlas.categories).map(([c, { values }]) => [c, atlas.colors[c]?.map((color) => pack(...hex(color))) ?? categoryColors(values.length)]));
    this.off = Object.fromEntries(Object.keys(atlas.categories).map((c) => [c, new Set()]));
    this.coloring = "dataset";
    this.pointed = -1;
    this.lit = -1;
    this.chosen = -1;
    this.selected = null;
    this.map = new ScatterMap(atlas, {
      hover: (i, x, y) => this.tip(i, x, y), pick: (i) => (i >= 0 ? this.pick(i) : this.clear()), select: (points) => this.select(points) });
    this.side = new SidePanel(atlas, {
      pick: (i) => this.pick(i), clear: () => this.clear(), point: (i) => this.map.hover(i), near: (list) => this.markNear(list),
      datasetColor: (code) => this.palettes.dataset[code], colorsOf: (category) => this.palettes[category] });
    this.search = new GeneSearch(atlas, (i) => { this.show("map"); this.pick(i); });
    this.setUp();
  }

  setUp() {
    const { atlas } = this;
    $("title").textContent = atlas.title;
    const choices = [...Object.entries(atlas.categories).map(([key, c]) => [key, c.label]), ...atlas.numbers.map((n) => ["n:" + n.name, n.label])];
    $("color").append(...choices.map(([key, label]) => el("option", { value: key }, label)));
    $("color").addEventListener("change", (event) => this.setColoring(event.target.value));
    this.choices = choices.map(([key]) => key);
    for (const tab of document.querySelectorAll("[data-view]")) tab.addEventListener("click", () => this.go(tab.dataset.view));
    for (const tool of document.querySelectorAll("[data-tool].icon")) tool.addEventListener("click", () => this.map.setTool(tool.dataset.tool));
    $("zoom-in").addEventListener("click", () => this.map.zoom(1.6, undefined, undefined, true));
    $("zoom-out").addEventListener("click", () => this.map.zoom(1 / 1.6, undefined, undefined, true));
    $("fit").addEventListener("click", () => this.map.fit());
    $("theme").addEventListener("click", () => this.toggleTheme());
    $("help").addEventListener("click", () => this.help());
    $("keys").addEventListener("click", () => $("keys").close());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.setTheme());
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("popstate", () => this.follow());
    window.addEventListener("hashchange", () => this.follow());
    this.setTheme();
    this.map.setTool("pan");
    this.setColoring("dataset");
    trainingView(atlas, $("view-training"), (code) => this.palettes.dataset[code]);
    evaluationView(atlas, $("view-evaluation"));
    graphsView(atlas, $("view-graphs"), (code) => this.palettes.dataset[code]);
    settingsView(atlas, $("view-settings"));
    this.side.overview();
    this.follow();
  }

  // ---- colours and filters

  setColoring(name) {
    const { atlas, map } = this;
    this.coloring = name;
    $("color").value = name;
    if (name.startsWith("n:")) {
      const values = atlas.arrays[name];
      const { low, high } = atlas.numbers.find((n) => "n:" + n.name === name);
      const grey = pack(150, 150, 155);
      for (let i = 0; i < atlas.n; i++) map.colors[i] = Number.isFinite(values[i]) ? rampColor((values[i] - low) / (high - low || 1)) : grey;
    } else {
      const codes = atlas.arrays[name];
      for (let i = 0; i < atlas.n; i++) map.colors[i] = this.palettes[name][codes[i]];
    }
    const named = name === "cluster" ? atlas.categories.cluster.values : null;
    map.setGroups(named && atlas.arrays.cluster, named);
    this.legend();
    this.refresh();
  }

  legend() {
    const { atlas, coloring } = this;
    if (coloring.startsWith("n:")) {
      const { low, high, integer } = atlas.numbers.find((n) => "n:" + n.name === coloring);
      const stops = RAMP.map((c, i) => `${c} ${(100 * i) / (RAMP.length - 1)}%`).join(",");
      $("legend").replaceChildren(el("div", { class: "ramp", style: { background: `linear-gradient(90deg, ${stops})` } }),
        el("div", { class: "line soft small" }, el("span", { class: "grow" }, number(low, integer ? 0 : 2)), number(high, integer ? 0 : 2)));
      return;
    }
    const { values } = atlas.categories[coloring];
    const count = new Array(values.length).fill(0);
    for (const code of atlas.arrays[coloring]) count[code]++;
    const off = this.off[coloring];
    const all = el("div", { class: "line small all" }, el("button", { class: "text", onclick: () => { off.clear(); this.legend(); this.refresh(); } }, "all"),
      el("button", { class: "text", onclick: () => { values.forEach((_, v) => off.add(v)); this.legend(); this.refresh(); } }, "none"));
    $("legend").replaceChildren(el("ul", { class: "keys" }, values.map((name, v) => el("li", {}, el("button", {
      "aria-pressed": String(!off.has(v)), title: "Click: show or hide. Double click: only this one.",
      onclick: () => this.toggle(v), ondblclick: () => this.isolate(v),
      onpointerenter: () => { this.lit = v; this.refresh(); }, onpointerleave: () => { this.lit = -1; this.refresh(); },
    }, el("i", { class: "swatch", style: { background: css(this.palettes[coloring][v]) } }), el("span", { class: "grow clip", title: name }, name),
      el("span", { class: "soft" }, number(count[v])))))), values.length > 2 ? all : "");
  }

  toggle(v) {
    const off = this.off[this.coloring];
    if (!off.delete(v)) off.add(v);
    this.legend();
    this.refresh();
  }

  isolate(v) {
    const off = this.off[this.coloring];
    this.atlas.categories[this.coloring].values.forEach((_, w) => off.add(w));
    off.delete(v);
    this.legend();
    this.refresh();
  }

  // The state of every point follows from filters, the legend under the pointer, the selection and the open gene.
  refresh() {
    const { atlas, map } = this;
    const { state } = map;
    const filters = Object.entries(this.off).filter(([, off]) => off.size).map(([c, off]) => [atlas.arrays[c], off]);
    const lit = this.lit >= 0 && !this.coloring.startsWith("n:") ? atlas.arrays[this.coloring] : null;
    const quiet = this.chosen >= 0;
    let shown = 0;
    for (let i = 0; i < atlas.n; i++) {
      let value = SHOWN;
      for (const [codes, off] of filters) if (off.has(codes[i])) value = HIDDEN;
      if (value !== HIDDEN) {
        shown++;
        if (lit ? lit[i] !== this.lit : quiet || (this.selected && !this.selected[i])) value = DIM;
      }
      state[i] = value;
    }
    $("count").textContent = shown === atlas.n ? plural(shown, "point") : `${number(shown)} of ${plural(atlas.n, "point")}`;
    map.draw();
  }

  // ---- one gene, or many

  pick(i, push = true) {
    this.chosen = i;
    this.selected = null;
    this.map.marks = { focus: i, copies: this.atlas.copies(i).filter((j) => j !== i), near: [] };
    this.side.gene(i);
    this.refresh();
    this.map.reveal([i]);
    document.title = `${this.atlas.gene(i)} – ${this.atlas.title}`;
    if (push) this.address(`#${encodeURIComponent(this.atlas.gene(i))}@${encodeURIComponent(this.atlas.of("dataset", i))}`);
  }

  markNear(list) {
    this.map.marks.near = list;
    this.map.draw();
  }

  select(points) {
    if (!points.length) return;
    this.chosen = -1;
    this.selected = new Uint8Array(this.atlas.n);
    for (const i of points) this.selected[i] = 1;
    this.map.marks = { focus: -1, copies: [], near: [] };
    this.side.selection(points);
    this.refresh();
    this.address("#");
  }

  clear(push = true) {
    if (this.chosen < 0 && !this.selected) return;
    this.chosen = -1;
    this.selected = null;
    this.map.marks = { focus: -1, copies: [], near: [] };
    this.side.overview();
    this.refresh();
    document.title = this.atlas.title;
    if (push) this.address("#");
  }

  tip(i, x, y) {
    const tip = $("tip");
    tip.hidden = i < 0 || !x;
    $("overlay").classList.toggle("over", i >= 0);
    if (tip.hidden) return;
    const { atlas } = this;
    tip.replaceChildren(el("b", {}, atlas.gene(i)), el("div", {}, atlas.of("dataset", i)),
      el("div", { class: "soft" }, `${atlas.of("modality", i)} · ${atlas.of("tissue", i)} · ${atlas.of("species", i)}`),
      el("div", { class: "soft" }, `cluster ${atlas.of("cluster", i)}`));
    const left = x + 16 + tip.offsetWidth > this.map.w ? x - 16 - tip.offsetWidth : x + 16;
    const top = y + 16 + tip.offsetHeight > this.map.h ? y - 12 - tip.offsetHeight : y + 14;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  // ---- address

  address(hash) {
    if (location.hash === hash || (hash === "#" && !location.hash)) return;
    history.pushState(null, "", hash);
  }

  go(view) {
    this.show(view);
    if (view !== "map") this.address(`#/${view}`);
    else if (this.chosen >= 0) this.pick(this.chosen);
    else this.address("#");
  }

  follow() {
    const hash = location.hash.slice(1);
    if (VIEWS.includes(hash.slice(1)) && hash[0] === "/") return this.show(hash.slice(1));
    this.show("map");
    if (!hash) return this.clear(false);
    const [gene, dataset] = hash.split("@").map(decode);
    const found = this.atlas.find(gene, dataset);
    if (found >= 0) this.pick(found, false);
    else toast(`No gene ${gene} here`);
  }

  show(view) {
    for (const name of VIEWS) {
      $(`view-${name}`).hidden = name !== view;
      $(`tab-${name}`).setAttribute("aria-selected", String(name === view));
    }
    this.view = view;
    if (view === "map") this.map.resize();
  }

  // ---- theme and keys

  setTheme(wanted) {
    const root = document.documentElement;
    if (wanted) root.dataset.theme = wanted;
    const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.dark = dark ? "1" : "0";
    this.map.draw();
  }

  toggleTheme() {
    this.setTheme(document.documentElement.dataset.dark === "1" ? "light" : "dark");
  }

  help() {
    $("keys").replaceChildren(el("h2", {}, "Keys"), el("dl", {}, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))));
    $("keys").showModal();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const action = this.actions()[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  actions() {
    const { map, side } = this;
    const views = Object.fromEntries(VIEWS.map((name, n) => [String(n + 1), () => this.go(name)]));
    const common = { ...views, "/": () => { this.show("map"); this.search.input.focus(); this.search.input.select(); }, "?": () => this.help(),
      t: () => this.toggleTheme(), Escape: () => this.escape() };
    if (this.view !== "map") return common;
    const open = this.chosen >= 0;
    return {
      ...common,
      ArrowDown: () => (open ? side.step(1) : map.pan(0, -60)), ArrowUp: () => (open ? side.step(-1) : map.pan(0, 60)),
      ArrowRight: () => (open ? this.turn(1) : map.pan(-60, 0)), ArrowLeft: () => (open ? this.turn(-1) : map.pan(60, 0)),
      ...(open && side.cursor >= 0 ? { Enter: () => this.pick(side.near[side.cursor].point) } : {}),
      "+": () => map.zoom(1.6, undefined, undefined, true), "=": () => map.zoom(1.6, undefined, undefined, true),
      "-": () => map.zoom(1 / 1.6, undefined, undefined, true), 0: () => map.fit(),
      v: () => map.setTool("pan"), l: () => map.setTool("lasso"), b: () => map.setTool("box"),
      c: () => this.setColoring(this.choices[(this.choices.indexOf(this.coloring) + 1) % this.choices.length]),
    };
  }

  // One step back: from another view to the map, from a gene or a selection to none, from a drawing tool to moving.
  escape() {
    if (this.view !== "map") this.go("map");
    else if (this.chosen >= 0 || this.selected) this.clear();
    else this.map.setTool("pan");
  }

  turn(by) {
    const copies = this.atlas.copies(this.chosen);
    if (copies.length > 1) this.pick(copies[(copies.indexOf(this.chosen) + by + copies.length) % copies.length]);
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

readPayload($("payload").textContent).then((atlas) => {
  $("payload").remove();
  window.musegnn = new Page(atlas);
  document.body.classList.add("ready");
}).catch((error) => {
  document.body.prepend(el("p", { class: "plain" }, `This page could not be read (${error.message}). It needs a browser of 2023 or later.`));
});
