// Search by name or identifier: exact before prefix before middle, then by number of datasets.

class GeneSearch {
  constructor(atlas, choose) {
    this.atlas = atlas;
    this.choose = choose;
    this.input = $("search");
    this.list = $("hits");
    this.hits = [];
    this.active = -1;
    this.index = this.buildIndex();
    this.input.addEventListener("input", () => this.update());
    this.input.addEventListener("focus", () => this.input.value && this.update());
    this.input.addEventListener("blur", () => this.close());
    this.input.addEventListener("keydown", (event) => this.key(event));
  }

  // One entry per name; names of the same key (orthologs) stay apart so that each is found as written.
  buildIndex() {
    const first = new Map();
    const { gene, gene_id } = this.atlas.arrays;
    for (let i = 0; i < this.atlas.n; i++) {
      const entry = first.get(gene[i]);
      if (!entry) {
        const name = this.atlas.genes[gene[i]];
        const id = this.atlas.ids[gene_id[i]];
        first.set(gene[i], { point: i, name, lower: name.toLowerCase(), ids: new Set([id.toLowerCase()]), id, count: 1 });
      } else {
        entry.count++;
        entry.ids.add(this.atlas.ids[gene_id[i]].toLowerCase());
      }
    }
    return [...first.values()];
  }

  rank(entry, text) {
    const at = entry.lower.indexOf(text);
    if (at === 0) return entry.lower.length === text.length ? 0 : 1;
    for (const id of entry.ids) if (id.startsWith(text)) return id.length === text.length ? 0 : 3;
    return at > 0 ? 2 : -1;
  }

  search(query) {
    const text = query.trim().toLowerCase();
    if (!text) return [];
    const found = [];
    for (const entry of this.index) {
      const rank = this.rank(entry, text);
      if (rank >= 0) found.push({ entry, rank });
    }
    found.sort((a, b) => a.rank - b.rank || (a.rank === 1 ? a.entry.lower.length - b.entry.lower.length : 0) ||
      b.entry.count - a.entry.count || (a.entry.name < b.entry.name ? -1 : 1));
    return found.slice(0, 12).map((f) => f.entry);
  }

  update() {
    this.hits = this.search(this.input.value);
    this.active = this.hits.length ? 0 : -1;
    const empty = el("li", { class: "none" }, "No gene of that name");
    this.list.replaceChildren(...(this.hits.length ? this.hits.map((hit, n) => this.row(hit, n)) : [empty]));
    this.list.hidden = !this.input.value.trim();
    this.input.setAttribute("aria-expanded", String(!this.list.hidden));
    this.mark();
  }

  row(hit, n) {
    const text = this.input.value.trim();
    const at = hit.lower.indexOf(text.toLowerCase());
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
    this.input.value = "";
    this.input.blur();
    this.choose(hit.point);
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.hits.length) {
      this.active = (this.active + step + this.hits.length) % this.hits.length;
      this.mark();
    } else if (event.key === "Enter" && this.active >= 0 && !this.list.hidden) {
      this.take(this.active);
    } else if (event.key === "Escape") {
      this.input.value = "";
      this.input.blur();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
