// Search by name or identifier: exact before prefix before middle, then by number of datasets. Several names at once, typed
// or pasted, are a list of genes.

const SEPARATORS = /[\s,;]+/;

class GeneSearch {
  constructor(atlas, handlers) {
    Object.assign(this, { atlas, handlers });
    this.input = $("search");
    this.list = $("hits");
    this.hits = [];
    this.active = -1;
    this.input.addEventListener("input", () => this.update());
    this.input.addEventListener("focus", () => this.input.value && this.update());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("paste", (event) => {
      const names = this.names(event.clipboardData.getData("text"));
      if (names.length < 2) return;
      event.preventDefault();
      this.takeMany(names);
    });
  }

  names(text) { return [...new Set(text.split(SEPARATORS).filter(Boolean))]; }

  get index() {
    void this.atlas.byName;
    this.lower ??= this.atlas.genes.map((name) => name.toLowerCase());
    this.lowerIds ??= this.atlas.ids.map((id) => (id ? id.toLowerCase() : ""));
    return this.lower;
  }

  rank(code, text) {
    const name = this.lower[code];
    const at = name.indexOf(text);
    if (at === 0) return name.length === text.length ? 0 : 1;
    const id = this.lowerIds[code];
    if (id && id.startsWith(text)) return id.length === text.length ? 0 : 3;
    return at > 0 ? 2 : -1;
  }

  search(query) {
    const text = query.trim().toLowerCase();
    if (!text) return [];
    const { atlas, index } = this;
    const found = [];
    for (let code = 0; code < index.length; code++) {
      const rank = this.rank(code, text);
      if (rank >= 0) found.push({ code, rank });
    }
    const length = (f) => (f.rank === 1 ? index[f.code].length : 0);
    found.sort((a, b) => a.rank - b.rank || length(a) - length(b) || atlas.uses[b.code] - atlas.uses[a.code] || a.code - b.code);
    const hits = [];
    const seen = new Set();
    for (const { code } of found) {
      if (seen.has(atlas.genes[code])) continue;
      seen.add(atlas.genes[code]);
      hits.push({ code, point: atlas.first[code], name: atlas.genes[code], id: atlas.ids[code] || atlas.genes[code], count: this.count(code) });
      if (hits.length === 12) break;
    }
    return hits;
  }

  // Datasets with a gene of this name.
  count(code) {
    return this.atlas.namesLike(this.atlas.genes[code]).filter((c) => this.atlas.genes[c] === this.atlas.genes[code])
      .reduce((sum, c) => sum + this.atlas.uses[c], 0);
  }

  update() {
    this.hits = this.search(this.input.value);
    this.active = this.hits.length ? 0 : -1;
    const many = this.names(this.input.value);
    const empty = many.length > 1 && !this.hits.length
      ? el("li", { class: "none", onpointerdown: (event) => { event.preventDefault(); this.takeMany(many); } }, `Enter shows these ${many.length} names as a list`)
      : el("li", { class: "none" }, "No gene of that name");
    this.list.replaceChildren(...(this.hits.length ? this.hits.map((hit, n) => this.row(hit, n)) : [empty]));
    this.list.hidden = !this.input.value.trim();
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    this.mark();
  }

  row(hit, n) {
    const text = this.input.value.trim();
    const at = hit.name.toLowerCase().indexOf(text.toLowerCase());
    const name = at < 0 ? [hit.name] : [
      hit.name.slice(0, at), el("mark", {}, hit.name.slice(at, at + text.length)), hit.name.slice(at + text.length)];
    const id = hit.id !== hit.name && el("span", { class: "id" }, hit.id);
    return el("li", {
      role: "option", id: `hit-${n}`,
      onpointerdown: (event) => { event.preventDefault(); this.take(n); },
      onpointermove: () => { this.active = n; this.mark(); },
    }, el("b", {}, name), id, el("span", { class: "count" }, plural(hit.count, "dataset")));
  }

  mark() {
    [...this.list.children].forEach((li, n) => li.setAttribute("aria-selected", String(n === this.active)));
    if (this.active >= 0) this.input.setAttribute("aria-activedescendant", `hit-${this.active}`);
    else this.input.removeAttribute("aria-activedescendant");
    this.list.children[this.active]?.scrollIntoView({ block: "nearest" });
  }

  take(n) {
    const hit = this.hits[n];
    this.leave();
    this.handlers.one(hit.point);
  }

  takeMany(names) {
    this.leave();
    this.handlers.many(names);
  }

  leave() {
    this.input.value = "";
    this.input.blur();
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const many = this.names(this.input.value);
    if (step && this.hits.length) {
      this.active = (this.active + step + this.hits.length) % this.hits.length;
      this.mark();
    } else if (event.key === "Enter" && this.active >= 0 && !this.list.hidden) this.take(this.active);
    else if (event.key === "Enter" && many.length > 1) this.takeMany(many);
    else if (event.key === "Escape") this.leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
