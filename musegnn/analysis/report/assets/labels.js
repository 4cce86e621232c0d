// Names on the map by closeness: clusters from afar, then the best known gene of every patch, close up every point.

const GROUPS_UNTIL = 6;
const GENES_FROM = 1.8;
const PATCH = [120, 30];
const FINEST = 512;

// A long name in two or three lines of about equal length.
function lines(text) {
  const words = text.split(" ");
  const count = Math.min(3, Math.ceil(text.length / 22));
  const found = [""];
  for (const word of words) {
    const line = found.at(-1);
    if (line && found.length < count && line.length + word.length / 2 > text.length / count) found.push(word);
    else found[found.length - 1] = line ? `${line} ${word}` : word;
  }
  return found;
}

class Labels {
  constructor(atlas, grid, view) {
    Object.assign(this, { atlas, grid, view });
    this.groups = [];
    this.levels = new Map();
    this.font = getComputedStyle(document.body).fontFamily;
  }

  // Forget which gene stands for which patch: other points are shown.
  invalidate() { this.levels.clear(); }

  // Groups of points by code, to be named on the map; `names` are null for groups without one.
  setGroups(codes, names, state) {
    this.named = { codes, names };
    this.arrange(state);
  }

  // Place each name in the middle of the densest part of what is shown of its group, largest group first.
  arrange(state) {
    if (!this.named) return;
    const { codes, names } = this.named;
    const SIDE = 64;
    const counts = names.map(() => new Uint32Array(SIDE * SIDE));
    const { x, y, n } = this.atlas;
    for (let i = 0; i < n; i++) if (state[i] !== HIDDEN) counts[codes[i]][(y[i] >> 10) * SIDE + (x[i] >> 10)]++;
    this.groups = counts.map((count, g) => {
      let [best, most, size] = [0, -1, 0];
      for (let c = 0; c < count.length; c++) {
        size += count[c];
        let near = 0;
        const [cx, cy] = [c % SIDE, c >> 6];
        if (count[c] > 0)
          for (let dy = -2; dy <= 2; dy++)
            for (let dx = -2; dx <= 2; dx++)
              if (cx + dx >= 0 && cx + dx < SIDE && cy + dy >= 0 && cy + dy < SIDE) near += count[c + dy * SIDE + dx];
        if (near > most) [best, most] = [c, near];
      }
      const place = [((best % SIDE) + 0.5) / SIDE * this.view.width, (1 - ((best >> 6) + 0.5) / SIDE) * this.view.height];
      return { name: names[g], size, place };
    }).filter((g) => g.size && g.name).sort((a, b) => b.size - a.size);
  }

  begin(pen, ink, paper, covers) {
    Object.assign(this, { pen, ink, paper });
    this.boxes = covers.map((c) => [c.left, c.top, c.right, c.bottom]);
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
  }

  // Write a name unless it would cover another one or leave the stage; say whether it was written.
  write(text, x, y, { weight = 400, size = 11.5, gap = 0, alpha = 1, middle = false, test = false, over = false } = {}) {
    const { pen } = this;
    const shown = text.length > 30 ? text.slice(0, 29) + "…" : text;
    pen.font = `${weight} ${size}px ${this.font}`;
    const wide = pen.measureText(shown).width;
    const left = middle ? Math.min(this.view.w - wide - 4, Math.max(4, x - wide / 2)) : x + gap + wide + 6 > this.view.w ? x - gap - 3 - wide : x + gap + 3;
    const half = size * 0.72;
    const box = [left - 3, y - half, left + wide + 3, y + half];
    if (!over && this.boxes.some((b) => b[0] < box[2] && b[2] > box[0] && b[1] < box[3] && b[3] > box[1])) return false;
    if (test) return true;
    this.boxes.push(box);
    pen.globalAlpha = alpha;
    pen.lineWidth = 3.5;
    pen.strokeStyle = this.paper;
    pen.strokeText(shown, left, y + 0.5);
    pen.fillStyle = this.ink;
    pen.fillText(shown, left, y + 0.5);
    pen.globalAlpha = 1;
    return true;
  }

  // A name in lines around its middle, all or none of them.
  writeLines(texts, x, y) {
    const kept = this.boxes.length;
    const style = { weight: 600, size: 12.5, middle: true };
    const written = texts.every((text, n) => this.write(text, x, y + (n - (texts.length - 1) / 2) * 15, { ...style, test: true }));
    this.boxes.length = kept;
    if (written) texts.forEach((text, n) => this.write(text, x, y + (n - (texts.length - 1) / 2) * 15, { ...style, over: true }));
  }

  writeGroups() {
    const { closeness, w, h } = this.view;
    if (closeness > GROUPS_UNTIL) return;
    const least = (0.008 * this.atlas.n) / closeness ** 2;
    for (const { name, size, place } of this.groups) {
      const [x, y] = this.view.screen(...place);
      if (size < least || x < 0 || y < 0 || x > w || y > h) continue;
      this.writeLines(lines(name), x, y);
    }
  }

  writeGenes(state, radius) {
    if (this.view.closeness < GENES_FROM) return;
    const close = this.grid.visible(state, 400);
    const seen = new Set();
    for (const i of close ?? this.winners(state)) {
      if (state[i] !== SHOWN || (!close && seen.has(this.atlas.key(i)))) continue;
      const [x, y] = this.view.screen(...this.grid.place(i));
      if (x < 0 || y < 0 || x > this.view.w || y > this.view.h) continue;
      if (this.write(this.atlas.gene(i), x, y, { gap: radius - 2, alpha: 0.86 })) seen.add(this.atlas.key(i));
    }
  }

  // The point of most datasets and largest degree in every patch of about PATCH pixels that lies on the screen.
  winners(state) {
    const wide = this.view.width * this.view.now.scale;
    const columns = Math.min(FINEST, 2 ** Math.max(1, Math.floor(Math.log2(wide / PATCH[0]))));
    const rows = columns * 4;
    if (!this.levels.has(columns)) this.levels.set(columns, this.choose(columns, rows, state));
    const winner = this.levels.get(columns);
    const [ax, ay] = this.grid.steps(...this.view.map(0, this.view.h));
    const [bx, by] = this.grid.steps(...this.view.map(this.view.w, 0));
    const clamp = (v, size) => Math.min(size - 1, Math.max(0, Math.floor((v / 65536) * size)));
    const found = [];
    for (let r = clamp(ay, rows); r <= clamp(by, rows); r++)
      for (let c = clamp(ax, columns); c <= clamp(bx, columns); c++) if (winner[r * columns + c]) found.push(winner[r * columns + c] - 1);
    return found.sort((a, b) => this.weight[b] - this.weight[a]);
  }

  choose(columns, rows, state) {
    const { x, y, n } = this.atlas;
    const winner = new Uint32Array(columns * rows);
    const weight = (this.weight ??= this.weights());
    const [sx, sy] = [columns / 65536, rows / 65536];
    for (let i = 0; i < n; i++) {
      if (state[i] !== SHOWN) continue;
      const c = Math.floor(y[i] * sy) * columns + Math.floor(x[i] * sx);
      if (!winner[c] || weight[i] > weight[winner[c] - 1]) winner[c] = i + 1;
    }
    return winner;
  }

  weights() {
    const { atlas } = this;
    const weight = new Float32Array(atlas.n);
    const { start } = atlas.groups;
    const degree = atlas.about("degree") ? (i) => atlas.number("degree", i) : () => 0;
    for (let i = 0; i < atlas.n; i++) {
      const key = atlas.key(i);
      weight[i] = 100 * Math.log2(1 + start[key + 1] - start[key]) + Math.log2(1 + degree(i));
    }
    return weight;
  }
}
