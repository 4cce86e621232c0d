// The data: two blocks of base64(deflate([uint32 length of header][header, JSON][arrays])). Arrays lie as byte planes and
// stay so where they are large: lists are read entry by entry, so that nothing of them is unpacked before it is asked for.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
const COSINE_STEPS = 2000;
const Z_STEPS = 20;

class Block {
  static async read(text) {
    const packed = fromBase64(text.trim());
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Block(new Uint8Array(await new Response(stream).arrayBuffer()));
  }

  constructor(bytes) {
    this.bytes = bytes;
    const length = new DataView(bytes.buffer).getUint32(0, true);
    this.header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    this.entries = {};
    let at = 4 + length;
    for (const { name, type, size } of this.header.arrays) {
      this.entries[name] = { type, size, width: Number(type[1]), at };
      at += size * Number(type[1]);
    }
    delete this.header.arrays;
  }

  has(name) { return name in this.entries; }

  array(name) {
    const { type, size, width, at } = this.entries[name];
    if (width === 1) return this.bytes.subarray(at, at + size);
    const values = new (type === "f4" ? Uint32Array : TYPES[type])(size);
    for (let plane = 0; plane < width; plane++) {
      const from = at + plane * size;
      const shift = 8 * plane;
      for (let i = 0; i < size; i++) values[i] |= this.bytes[from + i] << shift;
    }
    return type === "f4" ? new Float32Array(values.buffer) : values;
  }

  // A function that reads one whole number.
  reader(name) {
    const { size, width, at } = this.entries[name];
    const { bytes } = this;
    if (width === 1) return (i) => bytes[at + i];
    if (width === 2) return (i) => bytes[at + i] | (bytes[at + size + i] << 8);
    return (i) => (bytes[at + i] | (bytes[at + size + i] << 8) | (bytes[at + 2 * size + i] << 16) | (bytes[at + 3 * size + i] << 24)) >>> 0;
  }
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

const cosineOf = (code) => (code / COSINE_STEPS) * 2 - 1;
const evenBits = (v) => {
  v &= 0x55555555;
  v = (v | (v >>> 1)) & 0x33333333;
  v = (v | (v >>> 2)) & 0x0f0f0f0f;
  v = (v | (v >>> 4)) & 0x00ff00ff;
  return (v | (v >>> 8)) & 0xffff;
};

class Atlas {
  constructor(block) {
    Object.assign(this, block.header);
    this.block = block;
    this.lists = null;
    this.arrays = {};
    const place = block.array("place");
    this.x = new Uint16Array(this.n);
    this.y = new Uint16Array(this.n);
    this.code = place;
    for (let i = 0, code = 0; i < this.n; i++) {
      code = (code + place[i]) >>> 0;
      place[i] = code;
      this.x[i] = evenBits(code);
      this.y[i] = evenBits(code >>> 1);
    }
    this.name = block.array("name");
    this.keyOf = block.array("key_of");
    this.tally = {};
  }

  addLists(block) {
    this.lists = block;
    const { sets, partners, copies, typical, ...tables } = block.header;
    Object.assign(this, { ...tables, typical, sets, partnerLists: partners, hasCopies: copies });
    for (const name of ["within_index", "within_score", "across_index", "across_score"]) this[name] = block.reader(name);
    if (copies) this.copyScore = block.reader("copy_score");
    if (partners.k) {
      const count = block.array("partner_count");
      this.partnerStart = new Uint32Array(this.n + 1);
      for (let i = 0; i < this.n; i++) this.partnerStart[i + 1] = this.partnerStart[i] + count[i];
      this.partnerIndex = block.reader("partner_index");
      this.partnerZ = block.reader("partner_z");
    }
  }

  // ---- names and labels

  gene(i) { return this.genes[this.name[i]]; }
  geneId(i) { return this.ids[this.name[i]] || this.genes[this.name[i]]; }
  key(i) { return this.keyOf[this.name[i]]; }

  of(category, i) {
    const { values, by_dataset: table } = this.categories[category];
    return values[table ? table[this.codes("dataset")[i]] : this.codes(category)[i]];
  }

  codes(category) {
    if (!this.arrays[category]) {
      const table = this.categories[category].by_dataset;
      if (table) {
        const dataset = this.codes("dataset");
        const codes = new Uint16Array(this.n);
        const codeOf = Uint16Array.from(table);
        for (let i = 0; i < this.n; i++) codes[i] = codeOf[dataset[i]];
        this.arrays[category] = codes;
      } else {
        this.arrays[category] = this.block.array(category);
      }
    }
    return this.arrays[category];
  }

  // Datasets by tissue, in the order of datasets.
  get families() {
    const found = new Map();
    this.tissues.forEach((tissue, d) => found.set(tissue, [...(found.get(tissue) ?? []), d]));
    return found;
  }

  // Number of points of each value of a category.
  counts(category) {
    if (!this.tally[category]) {
      const { values, by_dataset: table } = this.categories[category];
      const count = (this.tally[category] = new Uint32Array(values.length));
      if (table) this.counts("dataset").forEach((size, d) => { count[table[d]] += size; });
      else for (const code of this.codes(category)) count[code]++;
    }
    return this.tally[category];
  }

  // Number of some points of each value of a category; what datasets decide follows from the number in each dataset.
  countsAmong(points, category) {
    const { values, by_dataset: table } = this.categories[category];
    const count = new Uint32Array(values.length);
    if (table) this.countsAmong(points, "dataset").forEach((size, d) => { count[table[d]] += size; });
    else {
      const codes = this.codes(category);
      for (let p = 0; p < points.length; p++) count[codes[points[p]]]++;
    }
    return count;
  }

  about(name) { return this.numbers.find((n) => n.name === name); }

  number(name, i) {
    const entry = (this.arrays["n:" + name] ??= this.block.array("n:" + name));
    const { start, step } = this.about(name);
    return entry[i] ? start + (entry[i] - 1) * step : NaN;
  }

  // ---- the same gene in several datasets

  // Points by key, those of a key in the order of datasets; `pairs` is where the cosines of their pairs start.
  get groups() {
    if (this.grouped) return this.grouped;
    const start = new Uint32Array(this.n_keys + 1);
    for (let i = 0; i < this.n; i++) start[this.key(i) + 1]++;
    const pairs = new Float64Array(this.n_keys + 1);
    for (let g = 0; g < this.n_keys; g++) {
      pairs[g + 1] = pairs[g] + (start[g + 1] * (start[g + 1] - 1)) / 2;
      start[g + 1] += start[g];
    }
    const next = start.slice();
    const members = new Uint32Array(this.n);
    const { byDataset, order } = this.datasetOrder;
    for (let at = 0; at < this.n; at++) members[next[this.key(order[at])]++] = order[at];
    this.grouped = { start, members, pairs, byDataset };
    return this.grouped;
  }

  // Points sorted by dataset, in point order within each; `byDataset` is where each dataset starts, `place` where a point is.
  get datasetOrder() {
    if (this.ordered) return this.ordered;
    const dataset = this.codes("dataset");
    const byDataset = new Uint32Array(this.categories.dataset.values.length + 1);
    for (const d of dataset) byDataset[d + 1]++;
    for (let d = 0; d < byDataset.length - 1; d++) byDataset[d + 1] += byDataset[d];
    const next = byDataset.slice();
    const order = new Uint32Array(this.n);
    const place = new Uint32Array(this.n);
    for (let i = 0; i < this.n; i++) {
      place[i] = next[dataset[i]]++;
      order[place[i]] = i;
    }
    this.ordered = { byDataset, order, place };
    return this.ordered;
  }

  pointsOf(key) {
    const { start, members } = this.groups;
    return Array.from(members.subarray(start[key], start[key + 1]));
  }

  copies(i) { return this.pointsOf(this.key(i)); }

  copyIn(key, dataset) {
    return this.pointsOf(key).find((j) => this.codes("dataset")[j] === dataset) ?? -1;
  }

  // The other copies of a point with their cosines, null where these are not stored.
  copyScores(i) {
    const all = this.copies(i);
    const [m, at, from] = [all.length, all.indexOf(i), this.groups.pairs[this.key(i)]];
    const pair = (a, b) => from + a * m - (a * (a + 1)) / 2 + (b - a - 1);
    return all.flatMap((point, b) => (b === at ? [] : [{ point, score: this.hasCopies ? cosineOf(this.copyScore(pair(Math.min(at, b), Math.max(at, b)))) : null }]));
  }

  // ---- neighbours in the space of vectors

  // Nearest points, best first: by cosine less what is typical for the two datasets. `side` is "within", "across" or "all".
  nearest(i, side) {
    const list = [];
    const { order, place } = this.datasetOrder;
    for (const name of side === "all" ? ["within", "across"] : [side]) {
      const [index, drop] = [this[name + "_index"], this[name + "_score"]];
      let code = 0;
      for (let n = 0, at = i * this.k; n < this.k; n++, at++) {
        code = n ? (code - drop(at)) & 0xffff : drop(at);
        const zigzag = index(at);
        const step = (zigzag >>> 1) ^ -(zigzag & 1);
        if (zigzag) list.push({ point: name === "within" ? order[place[i] + step] : i + step, score: cosineOf(code) });
      }
    }
    for (const entry of list) entry.rank = entry.score - this.usual(i, entry.point);
    list.sort((a, b) => b.rank - a.rank || a.point - b.point);
    return list.slice(0, this.k);
  }

  usual(i, j) {
    const dataset = this.codes("dataset");
    return this.typical[dataset[i] * this.categories.dataset.values.length + dataset[j]];
  }

  // ---- co-expression in one dataset

  // Partners of largest |z|, best first; null where none are stored.
  partners(i) {
    if (!this.partnerLists?.k) return null;
    const { byDataset, order } = this.datasetOrder;
    const from = byDataset[this.codes("dataset")[i]];
    const list = [];
    let size = 0;
    for (let at = this.partnerStart[i]; at < this.partnerStart[i + 1]; at++) {
      size = at === this.partnerStart[i] ? this.partnerZ(at) : size - this.partnerZ(at);
      const code = this.partnerIndex(at);
      list.push({ point: order[from + (code >>> 1)], z: ((code & 1 ? -1 : 1) * size) / Z_STEPS });
    }
    return list;
  }

  // The largest |z| that a pair of this point can have when it is not in its list.
  unlisted(i, list = this.partners(i)) {
    const full = list.length === this.partnerLists.k;
    return full ? Math.abs(list[list.length - 1].z) : this.partnerLists.least[this.of("dataset", i)] ?? 0;
  }

  // ---- finding

  get byName() {
    if (!this.nameIndex) {
      this.nameIndex = new Map();
      const add = (text, code) => {
        const known = this.nameIndex.get(text.toLowerCase());
        if (!known) this.nameIndex.set(text.toLowerCase(), [code]);
        else if (!known.includes(code)) known.push(code);
      };
      this.genes.forEach((name, code) => add(name, code));
      this.ids.forEach((id, code) => id && add(id, code));
      this.first = new Int32Array(this.genes.length).fill(-1);
      this.uses = new Uint32Array(this.genes.length);
      for (let i = this.n - 1; i >= 0; i--) {
        this.first[this.name[i]] = i;
        this.uses[this.name[i]]++;
      }
    }
    return this.nameIndex;
  }

  // Codes of names or identifiers equal to a text, as written or else without regard to case.
  namesLike(text) {
    const found = this.byName.get(text.trim().toLowerCase()) ?? [];
    const exact = found.filter((code) => this.genes[code] === text || this.ids[code] === text);
    return exact.length ? exact : found;
  }

  find(text, dataset) {
    const names = this.namesLike(text);
    if (!names.length) return -1;
    const points = [...new Set(names.map((code) => this.keyOf[code]))].flatMap((key) => this.pointsOf(key));
    const named = points.filter((i) => names.includes(this.name[i]));
    return named.find((i) => this.of("dataset", i) === dataset) ?? points.find((i) => this.of("dataset", i) === dataset) ?? named[0];
  }
}
