// The scatter. Points are blended into image data by hand: 1e5 points take some 10 ms on one core, without a GPU.

const HIDDEN = 0, DIM = 1, SHOWN = 2;
const GRID = 256;
const MAX_ZOOM = 400;

class ScatterMap {
  constructor(atlas, handlers) {
    this.atlas = atlas;
    this.handlers = handlers;
    this.stage = $("stage");
    this.canvas = $("points");
    this.over = $("overlay");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.pen = this.over.getContext("2d");
    this.tool = "pan";
    this.hovered = -1;
    this.marks = { focus: -1, copies: [], near: [] };
    this.colors = new Uint32Array(atlas.n);
    this.state = new Uint8Array(atlas.n).fill(SHOWN);
    this.view = null;
    this.pointers = new Map();
    this.path = null;
    this.normalise();
    this.order = this.shuffle(atlas.n);
    this.buildGrid();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.stage);
  }

  // Coordinates in [0, 1] with one scale for both axes, y upwards.
  normalise() {
    const { x, y, n, span } = this.atlas;
    const unit = Math.max(span[0], span[1]) || 1;
    this.width = span[0] / unit;
    this.height = span[1] / unit;
    this.px = new Float32Array(n);
    this.py = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      this.px[i] = (x[i] / 65535) * this.width;
      this.py[i] = (1 - y[i] / 65535) * this.height;
    }
  }

  // Points are drawn in a fixed mixed order, so that no dataset covers the others.
  shuffle(n) {
    const order = Uint32Array.from({ length: n }, (_, i) => i);
    let word = 0x9e3779b9;
    for (let i = n - 1; i > 0; i--) {
      word = (Math.imul(word, 1664525) + 1013904223) >>> 0;
      const j = Math.floor((word / 4294967296) * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  buildGrid() {
    const n = this.atlas.n;
    const cell = new Uint32Array(n);
    this.start = new Uint32Array(GRID * GRID + 1);
    for (let i = 0; i < n; i++) {
      const cx = Math.min(GRID - 1, Math.floor(this.px[i] * GRID));
      const cy = Math.min(GRID - 1, Math.floor(this.py[i] * GRID));
      cell[i] = cy * GRID + cx;
      this.start[cell[i] + 1]++;
    }
    for (let c = 0; c < GRID * GRID; c++) this.start[c + 1] += this.start[c];
    const next = this.start.slice();
    this.cells = new Uint32Array(n);
    for (let i = 0; i < n; i++) this.cells[next[cell[i]]++] = i;
  }

  resize() {
    const box = this.stage.getBoundingClientRect();
    if (!box.width || !box.height) return;
    const old = this.view && { w: this.w, h: this.h, whole: this.isWhole() };
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.w = box.width;
    this.h = box.height;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = Math.round(this.w * this.ratio);
      canvas.height = Math.round(this.h * this.ratio);
    }
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.words = new Uint32Array(this.image.data.buffer);
    if (old && !old.whole) {
      this.view.tx += (this.w - old.w) / 2;
      this.view.ty += (this.h - old.h) / 2;
      this.draw();
    } else {
      this.fit(false);
    }
  }

  // The whole map, centred in the part of the stage that the legend leaves free.
  home() {
    const left = this.w > 760 ? 190 : 0;
    const [w, h] = [this.w - left, this.h];
    const scale = 0.9 * Math.min(w / (this.width || 1), h / (this.height || 1));
    return { scale, tx: left + (w - this.width * scale) / 2, ty: (h - this.height * scale) / 2 };
  }

  isWhole() {
    const home = this.home();
    return ["scale", "tx", "ty"].every((key) => Math.abs(home[key] - this.view[key]) < 0.5);
  }

  fit(animate = true) {
    this.moveTo(this.home(), animate);
  }

  moveTo(target, animate = true) {
    cancelAnimationFrame(this.flight);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!animate || calm || !this.view) {
      this.view = target;
      this.draw();
      return;
    }
    const from = { ...this.view };
    const began = performance.now();
    const step = (now) => {
      const t = Math.min(1, (now - began) / 320);
      const e = 1 - (1 - t) ** 3;
      for (const key of ["scale", "tx", "ty"]) this.view[key] = from[key] + (target[key] - from[key]) * e;
      this.draw();
      if (t < 1) this.flight = requestAnimationFrame(step);
    };
    this.flight = requestAnimationFrame(step);
  }

  zoom(factor, cx = this.w / 2, cy = this.h / 2, animate = false) {
    const base = this.home().scale;
    const from = this.view;
    const scale = Math.min(base * MAX_ZOOM, Math.max(base * 0.5, from.scale * factor));
    const f = scale / from.scale;
    this.moveTo({ scale, tx: cx - (cx - from.tx) * f, ty: cy - (cy - from.ty) * f }, animate);
  }

  pan(dx, dy) {
    this.moveTo({ ...this.view, tx: this.view.tx + dx, ty: this.view.ty + dy }, false);
  }

  // Bring points into view when one of them is not.
  reveal(points) {
    if (!this.view || !points.length) return;
    const inside = points.every((i) => {
      const [x, y] = this.screen(i);
      return x > 40 && x < this.w - 40 && y > 40 && y < this.h - 40;
    });
    if (inside) return;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const i of points) {
      x0 = Math.min(x0, this.px[i]); x1 = Math.max(x1, this.px[i]);
      y0 = Math.min(y0, this.py[i]); y1 = Math.max(y1, this.py[i]);
    }
    const fits = 0.7 * Math.min(this.w / Math.max(x1 - x0, 1e-6), this.h / Math.max(y1 - y0, 1e-6));
    const scale = Math.min(this.view.scale, Math.max(fits, this.home().scale));
    this.moveTo({ scale, tx: this.w / 2 - ((x0 + x1) / 2) * scale, ty: this.h / 2 - ((y0 + y1) / 2) * scale });
  }

  screen(i) {
    return [this.px[i] * this.view.scale + this.view.tx, this.py[i] * this.view.scale + this.view.ty];
  }

  radius() {
    const n = this.atlas.n;
    const base = n < 3000 ? 3.2 : n < 12000 ? 2.5 : n < 40000 ? 1.9 : 1.4;
    return Math.min(8, base * (this.view.scale / this.home().scale) ** 0.35);
  }

  draw() {
    if (this.pending || !this.view) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
      this.paintOverlay();
    });
  }

  // Coverage of an antialiased disc, as offsets into the image and alphas of 0..256.
  stamp(radius) {
    const reach = Math.ceil(radius + 0.5);
    const stride = this.canvas.width;
    const list = [];
    for (let dy = -reach; dy <= reach; dy++)
      for (let dx = -reach; dx <= reach; dx++) {
        const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
        if (cover > 0.02) list.push([dy * stride + dx, cover]);
      }
    return { reach, offset: Int32Array.from(list, (e) => e[0]), cover: Float32Array.from(list, (e) => e[1]) };
  }

  paint() {
    const began = performance.now();
    const theme = getComputedStyle(document.documentElement);
    const paper = pack(...hex(theme.getPropertyValue("--map").trim()));
    this.words.fill(paper);
    const stamp = this.stamp(this.radius() * this.ratio);
    const dim = document.documentElement.dataset.dark === "1" ? 0.2 : 0.16;
    this.splat(DIM, stamp, dim);
    this.splat(SHOWN, stamp, 0.86);
    this.context.putImageData(this.image, 0, 0);
    this.paintTime = performance.now() - began;
  }

  splat(which, { reach, offset, cover }, opacity) {
    const { words, order, state, colors, px, py } = this;
    const [w, h] = [this.canvas.width, this.canvas.height];
    const scale = this.view.scale * this.ratio;
    const [tx, ty] = [this.view.tx * this.ratio, this.view.ty * this.ratio];
    const alpha = Int32Array.from(cover, (c) => Math.round(c * opacity * 256));
    const size = offset.length;
    for (let n = 0; n < order.length; n++) {
      const i = order[n];
      if (state[i] !== which) continue;
      const cx = Math.round(px[i] * scale + tx);
      const cy = Math.round(py[i] * scale + ty);
      if (cx < reach || cy < reach || cx >= w - reach || cy >= h - reach) continue;
      const color = colors[i];
      const rb = color & 0xff00ff;
      const g = color & 0x00ff00;
      const at = cy * w + cx;
      for (let s = 0; s < size; s++) {
        const a = alpha[s];
        const old = words[at + offset[s]];
        const mixRb = ((rb * a + (old & 0xff00ff) * (256 - a)) >>> 8) & 0xff00ff;
        const mixG = ((g * a + (old & 0x00ff00) * (256 - a)) >>> 8) & 0x00ff00;
        words[at + offset[s]] = 0xff000000 | mixRb | mixG;
      }
    }
  }

  paintOverlay() {
    const { pen } = this;
    const theme = getComputedStyle(document.documentElement);
    const ink = theme.getPropertyValue("--ink").trim();
    const paper = theme.getPropertyValue("--map").trim();
    pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    pen.clearRect(0, 0, this.w, this.h);
    this.boxes = [];
    const { focus, copies, near } = this.marks;
    const r = Math.max(4, this.radius() + 1.6);
    if (focus >= 0) {
      const [fx, fy] = this.screen(focus);
      pen.lineWidth = 1;
      for (const { point, score } of near) {
        const [x, y] = this.screen(point);
        pen.globalAlpha = 0.12 + 0.4 * Math.max(0, score);
        pen.strokeStyle = css(this.colors[point]);
        pen.beginPath(); pen.moveTo(fx, fy); pen.lineTo(x, y); pen.stroke();
      }
      pen.globalAlpha = 1;
      for (const { point } of near) this.disc(point, r - 1, paper, 1);
      for (const i of copies) this.disc(i, r + 0.5, ink, 1.6);
      this.disc(focus, r + 2, ink, 2.4);
      this.label(focus, this.atlas.gene(focus), ink, paper, true, r + 3);
      for (const i of copies) this.label(i, this.atlas.gene(i), ink, paper, true, r + 2);
      for (const { point } of near) this.label(point, this.atlas.gene(point), ink, paper, false, r);
    }
    this.labelVisible(ink, paper, r);
    this.labelGroups(ink, paper);
    if (this.hovered >= 0) this.disc(this.hovered, r + 1, ink, 1.6);
    if (this.path) this.paintPath(theme.getPropertyValue("--accent").trim());
  }

  disc(i, r, edge, width) {
    const [x, y] = this.screen(i);
    this.pen.beginPath();
    this.pen.arc(x, y, r, 0, 7);
    this.pen.fillStyle = css(this.colors[i]);
    this.pen.fill();
    this.pen.lineWidth = width;
    this.pen.strokeStyle = edge;
    this.pen.stroke();
  }

  // A name beside its point, unless it would cover another name.
  label(i, text, ink, paper, strong, gap) {
    const [x, y] = this.screen(i);
    if (x < 0 || y < 0 || x > this.w || y > this.h) return;
    const shown = text.length > 24 ? text.slice(0, 23) + "…" : text;
    this.pen.font = `${strong ? 600 : 400} ${strong ? 13 : 11.5}px ${getComputedStyle(document.body).fontFamily}`;
    const wide = this.pen.measureText(shown).width;
    const left = x + gap + wide + 6 > this.w ? x - gap - 3 - wide : x + gap + 3;
    const box = [left - 2, y - 8, left + wide + 2, y + 8];
    if (this.boxes.some((b) => b[0] < box[2] && b[2] > box[0] && b[1] < box[3] && b[3] > box[1])) return;
    this.boxes.push(box);
    this.pen.textBaseline = "middle";
    this.pen.lineJoin = "round";
    this.pen.lineWidth = 3.5;
    this.pen.strokeStyle = paper;
    this.pen.strokeText(shown, left, y + 0.5);
    this.pen.fillStyle = ink;
    this.pen.fillText(shown, left, y + 0.5);
  }

  // Close up, where few points are left, every point has its name.
  labelVisible(ink, paper, r) {
    const { scale, tx, ty } = this.view;
    if (scale < this.home().scale * 3) return;
    const found = [];
    const [c0, c1] = [Math.floor((-tx / scale) * GRID), Math.floor(((this.w - tx) / scale) * GRID)];
    const [r0, r1] = [Math.floor((-ty / scale) * GRID), Math.floor(((this.h - ty) / scale) * GRID)];
    for (let cy = Math.max(0, r0); cy <= Math.min(GRID - 1, r1); cy++)
      for (let cx = Math.max(0, c0); cx <= Math.min(GRID - 1, c1); cx++)
        for (let at = this.start[cy * GRID + cx]; at < this.start[cy * GRID + cx + 1]; at++) {
          if (this.state[this.cells[at]] !== HIDDEN) found.push(this.cells[at]);
          if (found.length > 400) return;
        }
    this.pen.globalAlpha = 0.8;
    for (const i of found) if (this.state[i] === SHOWN) this.label(i, this.atlas.gene(i), ink, paper, false, r - 2);
    this.pen.globalAlpha = 1;
  }

  // Names of groups (clusters) at the middle of their points, until the names of genes take over.
  labelGroups(ink, paper) {
    if (!this.groups || this.marks.focus >= 0 || this.view.scale > this.home().scale * 6) return;
    const { pen } = this;
    pen.font = `700 12px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = "middle";
    pen.textAlign = "center";
    const least = 0.012 * this.atlas.n * (this.home().scale / this.view.scale) ** 2;
    for (const { name, size, x, y } of this.groups) {
      if (size < least) continue;
      const [sx, sy] = [x * this.view.scale + this.view.tx, y * this.view.scale + this.view.ty];
      const half = pen.measureText(name).width / 2 + 3;
      const box = [sx - half, sy - 8, sx + half, sy + 8];
      if (this.boxes.some((b) => b[0] < box[2] && b[2] > box[0] && b[1] < box[3] && b[3] > box[1])) continue;
      this.boxes.push(box);
      pen.lineJoin = "round";
      pen.lineWidth = 4;
      pen.strokeStyle = paper;
      pen.strokeText(name, sx, sy);
      pen.fillStyle = ink;
      pen.fillText(name, sx, sy);
    }
    pen.textAlign = "left";
  }

  // Medians of the coordinates of each group, largest group first; null shows no names.
  setGroups(codes, names) {
    if (!codes) {
      this.groups = null;
      return;
    }
    const members = names.map(() => []);
    for (let i = 0; i < this.atlas.n; i++) members[codes[i]].push(i);
    const middle = (list, place) => Float32Array.from(list, (i) => place[i]).sort()[list.length >> 1];
    this.groups = members.map((list, g) => ({ name: names[g], size: list.length, x: middle(list, this.px), y: middle(list, this.py) }))
      .filter((g) => g.size).sort((a, b) => b.size - a.size);
  }

  paintPath(accent) {
    const { pen, path } = this;
    pen.beginPath();
    path.forEach(([x, y], n) => (n ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.globalAlpha = 0.1;
    pen.fillStyle = accent;
    pen.fill();
    pen.globalAlpha = 1;
    pen.strokeStyle = accent;
    pen.lineWidth = 1.5;
    pen.setLineDash([5, 4]);
    pen.stroke();
    pen.setLineDash([]);
  }

  at(x, y, reach = 12) {
    const { scale, tx, ty } = this.view;
    const [ux, uy, r] = [(x - tx) / scale, (y - ty) / scale, reach / scale];
    const clamp = (v) => Math.min(GRID - 1, Math.max(0, Math.floor(v * GRID)));
    let [best, distance] = [-1, r * r];
    for (let cy = clamp(uy - r); cy <= clamp(uy + r); cy++)
      for (let cx = clamp(ux - r); cx <= clamp(ux + r); cx++)
        for (let at = this.start[cy * GRID + cx]; at < this.start[cy * GRID + cx + 1]; at++) {
          const i = this.cells[at];
          if (this.state[i] === HIDDEN) continue;
          const d = (this.px[i] - ux) ** 2 + (this.py[i] - uy) ** 2;
          if (d < distance) [best, distance] = [i, d];
        }
    return best;
  }

  inside(path) {
    const { scale, tx, ty } = this.view;
    const poly = path.map(([x, y]) => [(x - tx) / scale, (y - ty) / scale]);
    const [xs, ys] = [poly.map((p) => p[0]), poly.map((p) => p[1])];
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const found = [];
    for (let i = 0; i < this.atlas.n; i++) {
      const [x, y] = [this.px[i], this.py[i]];
      if (this.state[i] === HIDDEN || x < x0 || x > x1 || y < y0 || y > y1) continue;
      let odd = false;
      for (let a = 0, b = poly.length - 1; a < poly.length; b = a++)
        if (poly[a][1] > y !== poly[b][1] > y &&
            x < ((poly[b][0] - poly[a][0]) * (y - poly[a][1])) / (poly[b][1] - poly[a][1]) + poly[a][0]) odd = !odd;
      if (odd) found.push(i);
    }
    return found;
  }

  setTool(tool) {
    this.tool = tool;
    this.stage.dataset.tool = tool;
    for (const button of document.querySelectorAll("[data-tool].icon"))
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }

  hover(i, x = 0, y = 0) {
    if (i !== this.hovered) {
      this.hovered = i;
      this.paintOverlay();
    }
    this.handlers.hover(i, x, y);
  }

  place(event) {
    const box = this.over.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  listen() {
    const { over } = this;
    over.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
      this.zoom(Math.exp(-Math.max(-120, Math.min(120, step)) * 0.0022), ...this.place(event));
    }, { passive: false });
    over.addEventListener("dblclick", (event) => this.zoom(2, ...this.place(event), true));
    over.addEventListener("pointerdown", (event) => this.down(event));
    over.addEventListener("pointermove", (event) => this.move(event));
    over.addEventListener("pointerup", (event) => this.up(event));
    over.addEventListener("pointercancel", (event) => { this.path = null; this.pointers.delete(event.pointerId); });
    over.addEventListener("pointerleave", () => this.hover(-1));
  }

  down(event) {
    if (event.button !== 0) return;
    this.over.setPointerCapture(event.pointerId);
    const at = this.place(event);
    this.pointers.set(event.pointerId, at);
    this.moved = this.pointers.size > 1;
    this.origin = at;
    this.drawing = event.shiftKey && this.tool === "pan" ? "lasso" : this.tool;
    this.path = this.drawing === "pan" || this.pointers.size > 1 ? null : [at];
    cancelAnimationFrame(this.flight);
  }

  move(event) {
    const at = this.place(event);
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      this.hover(this.at(...at), ...at);
      return;
    }
    if (!this.moved && Math.hypot(at[0] - this.origin[0], at[1] - this.origin[1]) < 4) return;
    this.moved = true;
    this.hover(-1);
    if (this.pointers.size === 2) this.pinch(event.pointerId, last, at);
    else if (!this.path) this.pan(at[0] - last[0], at[1] - last[1]);
    else if (this.drawing === "lasso") this.path.push(at);
    else this.path = [this.origin, [at[0], this.origin[1]], at, [this.origin[0], at[1]]];
    this.pointers.set(event.pointerId, at);
    if (this.path) this.paintOverlay();
  }

  pinch(id, last, at) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const spread = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    this.zoom(spread(at) / spread(last), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    this.pan((at[0] - last[0]) / 2, (at[1] - last[1]) / 2);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const path = this.path;
    this.path = null;
    if (!this.moved) this.handlers.pick(this.at(...this.place(event)));
    else if (path && path.length > 2) this.handlers.select(this.inside(path));
    this.draw();
  }
}
