// The payload: base64 of deflate of [uint32 length of header][header, JSON][arrays]. Arrays of more than one byte per
// value are stored as byte planes, which compress better; "delta" arrays hold falling differences along a row,
// modulo 2^16.

const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };

async function readPayload(text) {
  const raw = atob(text.trim());
  const packed = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) packed[i] = raw.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const arrays = {};
  let at = 4 + length;
  for (const { name, type, shape, delta } of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    const width = Number(type[1]);
    const flat = new Uint8Array(size * width);
    for (let plane = 0; plane < width; plane++)
      for (let i = 0, from = at + plane * size; i < size; i++) flat[i * width + plane] = bytes[from + i];
    at += size * width;
    const values = new TYPES[type](flat.buffer);
    if (delta)
      for (let row = 0, k = shape[1]; row < shape[0]; row++)
        for (let i = row * k + 1; i < row * k + k; i++) values[i] = values[i - 1] - values[i];
    arrays[name] = values;
  }
  return new Atlas(header, arrays);
}

class Atlas {
  constructor(header, arrays) {
    Object.assign(this, header);
    this.arrays = arrays;
    this.x = arrays.x;
    this.y = arrays.y;
    this.groups = this.groupPoints(arrays.key);
    this.byGene = new Map(this.genes.map((name, code) => [name, code]));
  }

  // Points of one key (the same gene in several datasets) lie together in `members`, in point order.
  groupPoints(key) {
    const count = this.n_keys;
    const start = new Uint32Array(count + 1);
    for (let i = 0; i < this.n; i++) start[key[i] + 1]++;
    for (let g = 0; g < count; g++) start[g + 1] += start[g];
    const next = start.slice();
    const members = new Uint32Array(this.n);
    const place = new Uint32Array(this.n);
    for (let i = 0; i < this.n; i++) {
      place[i] = next[key[i]] - start[key[i]];
      members[next[key[i]]++] = i;
    }
    const copies = new Uint32Array(this.n + 1);
    for (let i = 0; i < this.n; i++) copies[i + 1] = copies[i] + start[key[i] + 1] - start[key[i]] - 1;
    return { start, members, place, copies };
  }

  gene(i) { return this.genes[this.arrays.gene[i]]; }
  geneId(i) { return this.ids[this.arrays.gene_id[i]]; }
  of(category, i) { return this.categories[category].values[this.arrays[category][i]]; }

  copies(i) {
    const { start, members } = this.groups;
    const g = this.arrays.key[i];
    return Array.from(members.subarray(start[g], start[g + 1]));
  }

  // Cosine between a point and each of its copies, the point itself left out.
  copyScores(i) {
    const others = this.copies(i).filter((j) => j !== i);
    const from = this.groups.copies[i];
    return others.map((j, n) => ({ point: j, score: this.score(this.arrays.copy_score[from + n]) }));
  }

  score(code) { return (code / 65535) * 2 - 1; }

  // Nearest points, best first: by cosine less what is typical for the two datasets. `side` is "within", "across" or "all".
  nearest(i, side) {
    const list = [];
    for (const name of side === "all" ? ["within", "across"] : [side]) {
      const index = this.arrays[name + "_index"];
      const score = this.arrays[name + "_score"];
      for (let n = 0, at = i * this.k; n < this.k; n++, at++)
        if (index[at] > 0) list.push({ point: index[at] - 1, score: this.score(score[at]) });
    }
    const { dataset } = this.arrays;
    const typical = (j) => this.typical[dataset[i] * this.categories.dataset.values.length + dataset[j]];
    for (const entry of list) entry.rank = entry.score - typical(entry.point);
    list.sort((a, b) => b.rank - a.rank || a.point - b.point);
    return list.slice(0, this.k);
  }

  find(gene, dataset) {
    const code = this.byGene.get(gene);
    if (code === undefined) return -1;
    const key = this.arrays.gene.indexOf(code);
    const copies = this.copies(key).filter((i) => this.arrays.gene[i] === code);
    const exact = copies.find((i) => this.of("dataset", i) === dataset);
    return exact !== undefined ? exact : copies[0];
  }
}
