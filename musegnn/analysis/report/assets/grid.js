// Points by place: since they are in Morton order, those of one of GRID x GRID squares follow one another.

const GRID = 256;
const BANDS = 1024;

class Grid {
  constructor(atlas, view) {
    Object.assign(this, { atlas, view });
    this.spread = Uint32Array.from({ length: GRID }, (_, v) => {
      let bits = 0;
      for (let b = 0; b < 8; b++) bits |= ((v >> b) & 1) << (2 * b);
      return bits;
    });
    this.start = new Uint32Array(GRID * GRID + 1);
    for (let i = 0; i < atlas.n; i++) this.start[(atlas.code[i] >>> 16) + 1]++;
    for (let c = 0; c < GRID * GRID; c++) this.start[c + 1] += this.start[c];
    delete atlas.code;
  }

  cell(cx, cy) { return this.spread[cx] | (this.spread[cy] << 1); }

  // Place on the map, from 16-bit coordinates and back.
  place(i) {
    const { x, y } = this.atlas;
    return [(x[i] / 65535) * this.view.width, (1 - y[i] / 65535) * this.view.height];
  }

  steps(x, y) {
    return [(x / (this.view.width || 1)) * 65535, (1 - y / (this.view.height || 1)) * 65535];
  }

  // Call `visit` with the first and last + 1 point of every square that a box in steps touches.
  eachCell([x0, y0, x1, y1], visit) {
    const clamp = (v) => Math.min(GRID - 1, Math.max(0, Math.floor(v / 256)));
    for (let cy = clamp(y0); cy <= clamp(y1); cy++)
      for (let cx = clamp(x0); cx <= clamp(x1); cx++) {
        const c = this.cell(cx, cy);
        if (this.start[c] < this.start[c + 1]) visit(this.start[c], this.start[c + 1]);
      }
  }

  // Number of points that are not hidden in every square, row by row.
  histogram(state) {
    const counts = new Uint32Array(GRID * GRID);
    for (let cy = 0; cy < GRID; cy++)
      for (let cx = 0; cx < GRID; cx++) {
        const c = this.cell(cx, cy);
        let n = 0;
        for (let i = this.start[c]; i < this.start[c + 1]; i++) if (state[i] !== HIDDEN) n++;
        counts[cy * GRID + cx] = n;
      }
    return counts;
  }

  // The point nearest to a place on the screen, at most `reach` pixels away and not hidden; -1 where there is none.
  at(sx, sy, state, reach = 12) {
    const { scale } = this.view.now;
    const [qx, qy] = this.steps(...this.view.map(sx, sy));
    const [ux, uy] = [(this.view.width * scale) / 65535, (this.view.height * scale) / 65535];
    const [rx, ry] = [reach / (ux || 1), reach / (uy || 1)];
    const { x, y } = this.atlas;
    let [best, distance] = [-1, reach * reach];
    this.eachCell([qx - rx, qy - ry, qx + rx, qy + ry], (from, to) => {
      for (let i = from; i < to; i++) {
        const d = ((x[i] - qx) * ux) ** 2 + ((y[i] - qy) * uy) ** 2;
        if (d < distance && state[i] !== HIDDEN) [best, distance] = [i, d];
      }
    });
    return best;
  }

  // Points within the screen, at most `most`; null when there are more.
  visible(state, most) {
    const [ax, ay] = this.steps(...this.view.map(0, this.view.h));
    const [bx, by] = this.steps(...this.view.map(this.view.w, 0));
    const found = [];
    this.eachCell([ax, ay, bx, by], (from, to) => {
      for (let i = from; i < to && found.length <= most; i++) if (state[i] !== HIDDEN) found.push(i);
    });
    return found.length > most ? null : found;
  }

  // Points not hidden inside a polygon of places on the map. Its sides are sorted into bands of y, so that a point is
  // compared with few of them.
  inside(polygon, state) {
    const poly = polygon.map(([x, y]) => this.steps(x, y));
    const [xs, ys] = [poly.map((p) => p[0]), poly.map((p) => p[1])];
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const perStep = BANDS / (y1 - y0 || 1);
    const band = (y) => Math.min(BANDS - 1, Math.max(0, Math.floor((y - y0) * perStep)));
    const sides = Array.from({ length: BANDS }, () => []);
    for (let a = 0, b = poly.length - 1; a < poly.length; b = a++) {
      const [[ax, ay], [bx, by]] = [poly[a], poly[b]];
      if (ay === by) continue;
      for (let n = band(Math.min(ay, by)); n <= band(Math.max(ay, by)); n++) sides[n].push([ay, by, ax, (bx - ax) / (by - ay)]);
    }
    const bands = sides.map((list) => Float64Array.from(list.flat()));
    const { x, y, n } = this.atlas;
    const found = new Uint32Array(n);
    let count = 0;
    this.eachCell([x0, y0, x1, y1], (from, to) => {
      for (let i = from; i < to; i++) {
        const [px, py] = [x[i], y[i]];
        if (px < x0 || px > x1 || py < y0 || py > y1 || state[i] === HIDDEN) continue;
        const list = bands[band(py)];
        let odd = false;
        for (let s = 0; s < list.length; s += 4)
          if (list[s] > py !== list[s + 1] > py && px < list[s + 2] + (py - list[s]) * list[s + 3]) odd = !odd;
        if (odd) found[count++] = i;
      }
    });
    return found.slice(0, count);
  }
}
