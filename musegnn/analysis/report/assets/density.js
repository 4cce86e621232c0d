// Contours of the density of the points that are shown: lines that enclose fixed shares of them.

const CONTOUR_SHARES = [0.9, 0.7, 0.45, 0.2];
const MARGIN = 20; // squares around the map, in which outer lines close
const FIELD = GRID + 2 * MARGIN;

class Density {
  constructor(grid, view) {
    Object.assign(this, { grid, view });
    this.on = true;
    this.paths = null;
  }

  // Forget the lines; they are made anew at the next painting.
  invalidate() { this.paths = null; }

  paint(pen, ink, state) {
    if (!this.on || this.view.closeness > 12) return;
    this.paths ??= this.trace(this.grid.histogram(state));
    const { scale, tx, ty } = this.view.now;
    const fade = Math.min(1, 1.5 - Math.log2(this.view.closeness) / 3);
    pen.save();
    pen.transform(scale, 0, 0, scale, tx, ty);
    pen.strokeStyle = ink;
    pen.lineWidth = 1 / scale;
    this.paths.forEach((path, level) => {
      pen.globalAlpha = Math.max(0, fade) * (0.16 + 0.07 * level);
      pen.stroke(path);
    });
    pen.restore();
  }

  trace(counts) {
    let field = new Float32Array(FIELD * FIELD);
    for (let y = 0; y < GRID; y++) field.set(counts.subarray(y * GRID, (y + 1) * GRID), (y + MARGIN) * FIELD + MARGIN);
    const few = counts.reduce((a, b) => a + b, 0) < 20000;
    for (const reach of few ? [6, 5, 4] : [3, 3, 2]) field = blur(transpose(blur(transpose(field), reach)), reach);
    const sorted = Float32Array.from(field).sort();
    let total = 0;
    for (const v of sorted) total += v;
    const { width, height } = this.view;
    const place = (cx, cy) => [((cx - MARGIN + 0.5) / GRID) * width, (1 - (cy - MARGIN + 0.5) / GRID) * height];
    return CONTOUR_SHARES.map((share) => {
      let [sum, at] = [0, sorted.length - 1];
      while (at > 0 && sum < share * total) sum += sorted[at--];
      return contour(field, sorted[at], place);
    });
  }
}

function transpose(field) {
  const turned = new Float32Array(field.length);
  for (let y = 0; y < FIELD; y++) for (let x = 0; x < FIELD; x++) turned[x * FIELD + y] = field[y * FIELD + x];
  return turned;
}

// Running means of the rows.
function blur(field, reach) {
  const out = new Float32Array(field.length);
  const span = 2 * reach + 1;
  for (let y = 0; y < FIELD; y++) {
    const row = y * FIELD;
    let sum = 0;
    for (let x = -reach; x < FIELD; x++) {
      if (x + reach < FIELD) sum += field[row + x + reach];
      if (x - reach - 1 >= 0) sum -= field[row + x - reach - 1];
      if (x >= 0) out[row + x] = sum / span;
    }
  }
  return out;
}

const short = ([x, y]) => `${x.toFixed(5)} ${y.toFixed(5)}`;

// Marching squares: the line at a level as pieces, each within one square of the grid.
function contour(field, level, place) {
  let text = "";
  const cross = (ax, ay, bx, by) => {
    const [a, b] = [field[ay * FIELD + ax], field[by * FIELD + bx]];
    const t = (level - a) / (b - a || 1);
    return place(ax + (bx - ax) * t, ay + (by - ay) * t);
  };
  for (let y = 0; y < FIELD - 1; y++)
    for (let x = 0; x < FIELD - 1; x++) {
      const corners = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]];
      const above = corners.map(([cx, cy]) => field[cy * FIELD + cx] > level);
      if (above.every((v) => v === above[0])) continue;
      const ends = [];
      for (let side = 0; side < 4; side++) {
        const next = (side + 1) % 4;
        if (above[side] !== above[next]) ends.push(cross(...corners[side], ...corners[next]));
      }
      for (let e = 0; e + 1 < ends.length; e += 2) text += `M${short(ends[e])}L${short(ends[e + 1])}`;
    }
  return Object.assign(new Path2D(text), { text });
}
