// Gene sets that came with the page: which of them a gene belongs to, and which are enriched among some genes.

const PREFIX = /^(HALLMARK|GO|GOBP|GOMF|GOCC|REACTOME|KEGG|KEGG_MEDICUS|WP|BIOCARTA|PID)_/;
const CLUSTER_Q = 0.05;

// "HALLMARK_INTERFERON_ALPHA_RESPONSE" and "immune response (GO:0006955)" as people write them.
function setLabel(name) {
  const plain = name.replace(PREFIX, "").replace(/\s*[([]?(GO:\d+|R-HSA-\d+|WP\d+)[)\]]?\s*/g, " ").replaceAll("_", " ").trim();
  const calm = plain === plain.toUpperCase() ? plain.toLowerCase() : plain;
  return calm ? calm[0].toUpperCase() + calm.slice(1) : name;
}

class GeneSets {
  constructor(atlas) {
    this.atlas = atlas;
    this.names = atlas.sets;
    this.labels = this.names.map(setLabel);
    this.size = atlas.lists.array("set_size");
    this.keys = atlas.lists.array("set_gap");
    this.start = new Uint32Array(this.size.length + 1);
    for (let s = 0; s < this.size.length; s++) {
      this.start[s + 1] = this.start[s] + this.size[s];
      for (let at = this.start[s] + 1; at < this.start[s + 1]; at++) this.keys[at] += this.keys[at - 1];
    }
    this.logFactorial = new Float64Array(atlas.n_keys + 1);
    for (let v = 1; v <= atlas.n_keys; v++) this.logFactorial[v] = this.logFactorial[v - 1] + Math.log(v);
  }

  get any() { return this.names.length > 0; }

  members(s) { return this.keys.subarray(this.start[s], this.start[s + 1]); }

  // Sets of a key, smallest first.
  of(key) {
    const found = [];
    for (let s = 0; s < this.names.length; s++) {
      let [low, high] = [this.start[s], this.start[s + 1] - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.keys[middle] < key) low = middle + 1;
        else high = middle;
      }
      if (this.keys[low] === key) found.push(s);
    }
    return found.sort((a, b) => this.size[a] - this.size[b]);
  }

  // P(X >= x) of marked genes among n drawn of N, K of them marked: summed on the side of the smaller tail.
  tail(x, N, K, n) {
    const f = this.logFactorial;
    const log = (v) => f[K] - f[v] - f[K - v] + f[N - K] - f[n - v] - f[N - K - n + v] - (f[N] - f[n] - f[N - n]);
    const [least, most] = [Math.max(0, n + K - N), Math.min(K, n)];
    if (x <= least) return 1;
    if (x > most) return 0;
    const up = x > (n * K) / N;
    let sum = 0;
    if (up) for (let v = x, term = Math.exp(log(v)); v <= most && term > sum * 1e-17; v++) { sum += term; term *= ((K - v) * (n - v)) / ((v + 1) * (N - K - n + v + 1)); }
    else for (let v = x - 1, term = Math.exp(log(v)); v >= least && term > sum * 1e-17; v--) { sum += term; term *= (v * (N - K - n + v)) / ((K - v + 1) * (n - v + 1)); }
    return Math.min(1, up ? sum : 1 - sum);
  }

  // Enrichment of every set among genes, given as 0 or 1 per key: p by the hypergeometric tail, q by Benjamini and Hochberg.
  enrich(marked) {
    const N = this.atlas.n_keys;
    let n = 0;
    for (let key = 0; key < N; key++) n += marked[key];
    const rows = this.names.map((_, set) => {
      let overlap = 0;
      for (let at = this.start[set]; at < this.start[set + 1]; at++) overlap += marked[this.keys[at]];
      const size = this.size[set];
      return { set, overlap, size, fold: n ? overlap / ((n * size) / N) : 0, p: this.tail(overlap, N, size, n), q: 1 };
    });
    rows.sort((a, b) => a.p - b.p || b.fold - a.fold || a.set - b.set);
    for (let r = rows.length - 1, least = 1; r >= 0; r--) rows[r].q = least = Math.min(least, (rows[r].p * rows.length) / (r + 1));
    return rows;
  }

  // 0 or 1 per key, from points or from keys.
  markPoints(points) {
    const { name, keyOf, n_keys: n } = this.atlas;
    const marked = new Uint8Array(n);
    for (let p = 0; p < points.length; p++) marked[keyOf[name[points[p]]]] = 1;
    return marked;
  }

  // A name for each cluster: its most enriched set that no larger cluster is named by; null where there is none.
  nameClusters() {
    const { atlas } = this;
    const { values } = atlas.categories.cluster;
    if (!this.any) return values.map(() => null);
    const codes = atlas.codes("cluster");
    const marked = values.map(() => new Uint8Array(atlas.n_keys));
    for (let i = 0; i < atlas.n; i++) marked[codes[i]][atlas.key(i)] = 1;
    const used = new Set();
    return marked.map((mask) => {
      const best = this.enrich(mask).find((row) => row.q < CLUSTER_Q && row.overlap >= 3 && !used.has(this.labels[row.set]));
      if (!best) return null;
      used.add(this.labels[best.set]);
      return this.labels[best.set];
    });
  }
}
