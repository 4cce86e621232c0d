// The page: what is seen follows from its state, and its state is in the address.

const VIEWS = ["map", "training", "evaluation", "graphs", "settings"];
const WRITE_AFTER = 300; // milliseconds without movement, after which the view goes into the address

class Page {
  constructor(atlas) {
    this.atlas = atlas;
    this.chosen = -1;
    this.many = null; // { points, mask, ... } of a lasso, a list or a set
    this.vs = null;
    this.tab = "map";
    this.sets = { any: false };
    this.changes = null;
    this.live = atlas.live ? new Live(atlas) : null;
    this.legend = new Legend(atlas, { color: (name) => { this.setColoring(name); this.write(); }, filter: () => { this.refresh(); this.write(); }, light: () => this.refresh(false), folded: () => this.map.draw() });
    this.map = new ScatterMap(atlas, {
      hover: (i, x, y) => this.tip(i, x, y), pick: (i) => (i >= 0 ? this.pick(i) : this.clear()),
      select: (polygon) => this.lasso(polygon), moved: () => this.moved() });
    const page = this;
    this.handlers = {
      pick: (i) => this.pick(i), clear: () => this.clear(), point: (i) => this.map.hover(i), near: (list) => this.markNear(list),
      openSet: (s) => this.openSet(this.sets.names[s]), name: (category, v) => this.legend.name(category, v), palettes: this.legend.palettes,
      against: () => this.vs, compare: (i, dataset) => { this.vs = dataset; this.pick(i); }, live: this.live, color: (name) => { this.setColoring(name); this.write(); },
      get sets() { return page.sets; }, get changes() { return page.changes; } };
    this.genePanel = new GenePanel(atlas, this.handlers);
    this.listPanel = new ListPanel(atlas, this.handlers);
    this.search = new GeneSearch(atlas, { one: (i) => { this.show("map"); this.pick(i); }, many: (names) => { this.show("map"); this.openList(names); } });
    this.setUp();
  }

  setUp() {
    $("title").textContent = this.atlas.title;
    for (const tab of document.querySelectorAll("[data-view]")) tab.addEventListener("click", () => this.go(tab.dataset.view));
    for (const tool of document.querySelectorAll("[data-tool].icon")) tool.addEventListener("click", () => this.map.gestures.setTool(tool.dataset.tool));
    const { view } = this.map;
    const press = { "zoom-in": () => view.zoom(1.6, undefined, undefined, true), "zoom-out": () => view.zoom(1 / 1.6, undefined, undefined, true), fit: () => view.fit(),
      theme: () => this.toggleTheme(), help: showKeys, contours: () => this.toggleContours(), save: () => this.saveMenu(),
      "save-png": () => savePng(this.map, this.legend), "save-svg": () => saveSvg(this.map, this.legend), "save-tsv": () => this.saveTable() };
    for (const [id, action] of Object.entries(press)) $(id).addEventListener("click", action);
    for (const id of ["keys", "save-menu"]) $(id).addEventListener("click", (event) => event.target.closest("button, dialog > *") === null && $(id).close());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.setTheme());
    listenToKeys(this);
    window.addEventListener("popstate", () => this.follow());
    window.addEventListener("hashchange", () => this.follow());
    this.setTheme();
    this.map.gestures.setTool("pan");
    this.setColoring("dataset");
    $("side").replaceChildren(...overviewPanel(this.atlas, this.handlers, this.legend.palettes));
  }

  // The lists have come: name the clusters, fill the other views, go where the address says.
  complete() {
    const { atlas } = this;
    this.sets = new GeneSets(atlas);
    this.changes = new Changes(atlas);
    atlas.clusterNames = this.sets.nameClusters();
    if (this.sets.any) this.map.labels.setGroups(atlas.codes("cluster"), atlas.clusterNames, this.map.state);
    const color = (code) => this.legend.palettes.dataset[code];
    trainingView(atlas, $("view-training"), color);
    evaluationView(atlas, $("view-evaluation"));
    graphsView(atlas, $("view-graphs"), color);
    settingsView(atlas, $("view-settings"));
    this.ready = true;
    this.map.settled = true;
    if (this.changes.all.length || this.sets.any) $("side").replaceChildren(...overviewPanel(atlas, this.handlers, this.legend.palettes));
    this.legend.show();
    this.follow();
    this.map.draw();
  }

  // ---- colours and filters

  setColoring(name) {
    const { atlas, map } = this;
    this.legend.coloring = this.legend.choices.includes(name) ? name : "dataset";
    this.legend.paintInto(map.colors);
    if (this.ready && !this.sets.any) {
      const shown = this.legend.coloring === "cluster";
      map.labels.setGroups(atlas.codes("cluster"), atlas.categories.cluster.values.map((v) => (shown ? v : null)), map.state);
    }
    this.legend.show();
    this.refresh(false);
  }

  nextColoring() {
    const { choices, coloring } = this.legend;
    this.setColoring(choices[(choices.indexOf(coloring) + 1) % choices.length]);
    this.write();
  }

  // The state of every point follows from filters, the legend under the pointer, the selection and the open gene.
  refresh(shape = true) {
    const { atlas, map, legend, many } = this;
    const { state } = map;
    const lit = legend.lit >= 0 && !legend.coloring.startsWith("n:") ? atlas.codes(legend.coloring) : null;
    const base = this.chosen >= 0 ? DIM : SHOWN;
    if (lit) for (let i = 0; i < atlas.n; i++) state[i] = lit[i] === legend.lit ? SHOWN : DIM;
    else if (many) for (let i = 0; i < atlas.n; i++) state[i] = many.mask[i] ? SHOWN : DIM;
    else state.fill(base);
    for (const { category, codes, off } of legend.filters) {
      const hide = Uint8Array.from(atlas.categories[category].values, (_, v) => Number(off.has(v)));
      for (let i = 0; i < atlas.n; i++) if (hide[codes[i]]) state[i] = HIDDEN;
    }
    let shown = atlas.n;
    if (legend.filters.length) { shown = 0; for (let i = 0; i < atlas.n; i++) shown += Number(state[i] !== HIDDEN); }
    $("count").textContent = shown === atlas.n ? plural(shown, "point") : `${number(shown)} of ${plural(atlas.n, "point")}`;
    map.refresh(shape);
  }

  toggleContours() {
    this.map.density.on = !this.map.density.on;
    $("contours").setAttribute("aria-pressed", String(this.map.density.on));
    this.map.draw();
    this.write();
  }

  // ---- one gene, or many

  leaveSubject() {
    this.chosen = -1;
    this.many = null;
    this.map.marks = { focus: -1, copies: [], near: [], many: [] };
    this.map.hover(-1);
  }

  pick(i, push = true) {
    const { atlas } = this;
    this.leaveSubject();
    this.chosen = i;
    Object.assign(this.map.marks, { focus: i, copies: atlas.copies(i).filter((j) => j !== i) });
    this.genePanel.show(i);
    if (this.map.view.w < NARROW) this.legend.unfold(false);
    this.refresh(false);
    this.map.reveal([i]);
    document.title = `${atlas.gene(i)} – ${atlas.title}`;
    this.say(`${atlas.gene(i)} in ${atlas.of("dataset", i)}, ${plural(atlas.copies(i).length, "context")}`);
    if (push) this.write();
  }

  markNear(list) {
    this.map.marks.near = list;
    this.map.draw();
  }

  open(subject, points, panel, marked, push) {
    this.leaveSubject();
    const mask = new Uint8Array(this.atlas.n);
    for (let p = 0; p < points.length; p++) mask[points[p]] = 1;
    this.many = { ...subject, points, mask };
    if (marked) this.map.marks.many = Array.from(points.slice(0, 2000));
    this.listPanel.show({ ...panel, points });
    this.refresh(false);
    if (marked && points.length) this.map.reveal(this.map.marks.many);
    document.title = `${panel.title} – ${this.atlas.title}`;
    this.say(`${panel.title}: ${$("selected").textContent}`);
    if (push) this.write();
  }

  lasso(polygon, push = true) {
    const corners = simplify(polygon);
    const began = performance.now();
    const points = this.map.inside(corners);
    if (points.length) this.open({ lasso: corners }, points, { title: "Selection" }, false, push);
    this.lassoTime = performance.now() - began;
  }

  pointsOfKeys(keys) { return [...new Set(keys)].flatMap((key) => this.atlas.pointsOf(key)); }

  openList(names, push = true) {
    const { atlas } = this;
    const found = names.map((name) => atlas.namesLike(name));
    const missing = names.filter((_, n) => !found[n].length);
    const points = this.pointsOfKeys(found.flat().map((code) => atlas.keyOf[code]));
    if (!points.length) return toast(names.length === 1 ? `No gene ${names[0]} here` : "None of these genes is here");
    return this.open({ names }, points, { title: "Gene list", missing, about: `${names.length - missing.length} of ${plural(names.length, "name")} found` }, true, push);
  }

  openSet(name, push = true) {
    const s = this.sets.names.indexOf(name);
    if (s < 0) return toast(`No gene set ${name} here`);
    return this.open({ set: name }, this.pointsOfKeys(this.sets.members(s)), { title: this.sets.labels[s], about: "gene set" }, true, push);
  }

  clear(push = true) {
    this.map.hover(-1);
    if (this.chosen < 0 && !this.many) return;
    this.leaveSubject();
    $("side").replaceChildren(...overviewPanel(this.atlas, this.handlers, this.legend.palettes));
    this.refresh(false);
    document.title = this.atlas.title;
    if (push) this.write();
  }

  turn(by) {
    const copies = this.atlas.copies(this.chosen);
    if (copies.length > 1) this.pick(copies[(copies.indexOf(this.chosen) + by + copies.length) % copies.length]);
  }

  // One step back: from another view to the map, from a gene or a selection to none, from a drawing tool to moving.
  escape() {
    this.map.hover(-1);
    if (this.tab !== "map") this.go("map");
    else if (this.chosen >= 0 || this.many) this.clear();
    else this.map.gestures.setTool("pan");
  }

  tip(i, x, y) {
    const tip = $("tip");
    tip.hidden = i < 0 || !x;
    $("overlay").classList.toggle("over", i >= 0);
    if (tip.hidden) return;
    const { atlas } = this;
    const certainty = atlas.about("certainty") ? atlas.number("certainty", i) : NaN;
    tip.replaceChildren(el("b", {}, atlas.gene(i)), el("div", {}, atlas.of("dataset", i)),
      el("div", { class: "soft" }, `${atlas.of("modality", i)} · ${atlas.of("tissue", i)} · ${atlas.of("species", i)}`),
      el("div", { class: "soft" }, `cluster ${this.legend.name("cluster", atlas.codes("cluster")[i])}`),
      certainty < LOW_CERTAINTY ? el("div", { class: "doubt" }, `certainty ${certainty.toFixed(2)}`) : "");
    const { w, h } = this.map.view;
    const left = x + 16 + tip.offsetWidth > w ? Math.max(4, x - 16 - tip.offsetWidth) : x + 16;
    const top = y + 16 + tip.offsetHeight > h ? y - 12 - tip.offsetHeight : y + 14;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  }

  say(text) { $("status").textContent = text; }

  // ---- address

  get hash() {
    const { atlas, legend, map, many } = this;
    let subject = "";
    if (this.tab !== "map") subject = `/${this.tab}`;
    else if (this.chosen >= 0) subject = `${encodeURIComponent(atlas.gene(this.chosen))}@${encodeURIComponent(atlas.of("dataset", this.chosen))}`;
    else if (many?.names) subject = many.names.map(encodeURIComponent).join(",") + (many.names.length === 1 ? "," : "");
    const off = Object.fromEntries(Object.entries(legend.off).map(([c, hidden]) => [c, [...hidden].sort((a, b) => a - b).map((v) => atlas.categories[c].values[v])]));
    return writeAddress({ subject, color: legend.coloring, off, set: many?.set, lasso: many?.lasso, contours: map.density.on,
      vs: this.chosen >= 0 ? this.vs : null, at: map.view.isWhole() ? null : map.view.place });
  }

  // Steps that "back" undoes are pushed; movements of the view replace the address.
  write(push = true) {
    if (this.following) return;
    const { hash } = this;
    if (location.hash === hash || (hash === "#" && !location.hash)) return;
    history[push ? "pushState" : "replaceState"](null, "", hash);
  }

  moved() {
    clearTimeout(this.writing);
    this.map?.overlay.mark(-1);
    $("tip").hidden = true;
    this.writing = setTimeout(() => this.map.view.now && this.tab === "map" && this.write(false), WRITE_AFTER);
  }

  go(tab) {
    this.show(tab);
    this.write();
  }

  follow() {
    if (!this.ready) return;
    const wanted = readAddress(location.hash);
    this.following = true;
    const tab = wanted.subject[0] === "/" && VIEWS.includes(wanted.subject.slice(1)) ? wanted.subject.slice(1) : "map";
    this.show(tab);
    if (tab === "map") this.followMap(wanted);
    this.following = false;
  }

  followMap(wanted) {
    const { atlas, legend, map } = this;
    this.vs = wanted.vs;
    map.density.on = wanted.contours;
    $("contours").setAttribute("aria-pressed", String(wanted.contours));
    for (const [category, off] of Object.entries(legend.off)) {
      off.clear();
      for (const name of wanted.off[category] ?? []) {
        const v = atlas.categories[category].values.indexOf(name);
        if (v >= 0) off.add(v);
      }
    }
    if (wanted.at) map.view.setPlace(wanted.at);
    else if (!map.view.isWhole()) map.view.fit(false);
    this.setColoring(wanted.color);
    this.refresh();
    const { names, dataset } = readSubject(wanted.subject);
    const found = names.length === 1 && names[0] ? atlas.find(names[0], dataset) : -1;
    if (found >= 0 && !wanted.subject.includes(",")) this.pick(found, false);
    else if (wanted.subject) this.openList(names, false);
    else if (wanted.set) this.openSet(wanted.set, false);
    else if (wanted.lasso) this.lasso(wanted.lasso, false);
    else this.clear(false);
  }

  show(tab) {
    for (const name of VIEWS) {
      $(`view-${name}`).hidden = name !== tab;
      $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
      $(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    }
    this.tab = tab;
    if (tab === "map") this.map.resize();
  }

  // ---- theme, search and saving

  setTheme(wanted) {
    const root = document.documentElement;
    if (wanted) root.dataset.theme = wanted;
    const dark = root.dataset.theme === "dark" || (root.dataset.theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.dark = dark ? "1" : "0";
    this.map.draw();
  }

  toggleTheme() { this.setTheme(document.documentElement.dataset.dark === "1" ? "light" : "dark"); }

  focusSearch() {
    this.show("map");
    this.search.input.focus();
    this.search.input.select();
  }

  saveMenu() {
    $("save-what").textContent = this.many ? "the points of the list" : "all points that are shown";
    $("save-menu").showModal();
  }

  saveTable() {
    const { state } = this.map;
    const points = this.many ? this.many.points : Array.from({ length: this.atlas.n }, (_, i) => i).filter((i) => state[i] !== HIDDEN);
    saveText(this.listPanel.table(points), "points.tsv");
  }
}

// At most 120 corners in the steps that the address can hold, so that a link selects the same points.
function simplify(polygon) {
  const every = Math.ceil(polygon.length / 120);
  return polygon.filter((_, n) => n % every === 0).map((corner) => corner.map((v) => Math.round(v * CORNER_STEPS) / CORNER_STEPS));
}

const parsed = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});
const frame = () => new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });

async function start() {
  const times = (window.times = {});
  const reading = Block.read($("data-points").textContent);
  WebglPoints.warmUp($("points")); // takes its time while the block is unpacked elsewhere
  const points = await reading;
  const atlas = new Atlas(points);
  const page = (window.musegnn = new Page(atlas));
  document.body.classList.add("painted");
  await frame();
  times.painted = performance.now();
  await parsed;
  const lists = await Block.read($("data-lists").textContent);
  for (const id of ["data-points", "data-lists"]) $(id).remove();
  atlas.addLists(lists);
  page.complete();
  await frame();
  times.ready = performance.now();
  document.body.classList.add("ready");
}

start().catch((error) => {
  document.body.prepend(el("p", { class: "plain" }, `This page could not be read (${error.message}). It needs a browser of 2023 or later.`));
});
