// Which part of the map is seen: screen = map * scale + (tx, ty). Map coordinates have one scale for both axes, y upwards.

const MAX_ZOOM = 400;

class View {
  constructor(atlas, changed) {
    const unit = Math.max(atlas.span[0], atlas.span[1]) || 1;
    this.width = atlas.span[0] / unit;
    this.height = atlas.span[1] / unit;
    this.changed = changed;
    this.now = null;
  }

  resize(w, h, left) {
    const old = this.now && { w: this.w, h: this.h, whole: this.isWhole() };
    Object.assign(this, { w, h, left });
    if (!old || old.whole) this.now = this.home();
    else this.now = { ...this.now, tx: this.now.tx + (w - old.w) / 2, ty: this.now.ty + (h - old.h) / 2 };
  }

  // The whole map, centred in the part of the stage that the legend leaves free.
  home() {
    const [w, h] = [this.w - this.left, this.h];
    const scale = 0.9 * Math.min(w / (this.width || 1), h / (this.height || 1));
    return { scale, tx: this.left + (w - this.width * scale) / 2, ty: (h - this.height * scale) / 2 };
  }

  isWhole() {
    const home = this.home();
    return ["scale", "tx", "ty"].every((key) => Math.abs(home[key] - this.now[key]) < 0.5);
  }

  get closeness() { return this.now.scale / this.home().scale; }

  // Middle of the free part and closeness, as written into the address.
  get place() {
    const { scale, tx, ty } = this.now;
    return [((this.w + this.left) / 2 - tx) / scale, (this.h / 2 - ty) / scale, this.closeness];
  }

  setPlace([x, y, closeness]) {
    const scale = this.home().scale * Math.min(MAX_ZOOM, Math.max(0.5, closeness));
    this.moveTo({ scale, tx: (this.w + this.left) / 2 - x * scale, ty: this.h / 2 - y * scale }, false);
  }

  moveTo(target, animate = true) {
    cancelAnimationFrame(this.flight);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (!animate || calm || !this.now) {
      this.now = target;
      this.changed();
      return;
    }
    const from = { ...this.now };
    const began = performance.now();
    const step = (time) => {
      const t = Math.min(1, (time - began) / 320);
      const e = 1 - (1 - t) ** 3;
      const at = (key) => from[key] + (target[key] - from[key]) * e;
      this.now = { scale: at("scale"), tx: at("tx"), ty: at("ty") };
      this.changed();
      if (t < 1) this.flight = requestAnimationFrame(step);
    };
    this.flight = requestAnimationFrame(step);
  }

  stop() { cancelAnimationFrame(this.flight); }

  fit(animate = true) { this.moveTo(this.home(), animate); }

  zoom(factor, cx = (this.w + this.left) / 2, cy = this.h / 2, animate = false) {
    const base = this.home().scale;
    const from = this.now;
    const scale = Math.min(base * MAX_ZOOM, Math.max(base * 0.5, from.scale * factor));
    const f = scale / from.scale;
    this.moveTo({ scale, tx: cx - (cx - from.tx) * f, ty: cy - (cy - from.ty) * f }, animate);
  }

  pan(dx, dy) {
    this.moveTo({ ...this.now, tx: this.now.tx + dx, ty: this.now.ty + dy }, false);
  }

  // Move so that places of the map are seen, and not under what covers the stage.
  reveal(places, covers = []) {
    if (!this.now || !places.length) return;
    const seen = places.every(([x, y]) => {
      const [sx, sy] = this.screen(x, y);
      const covered = covers.some((c) => sx > c.left - 14 && sx < c.right + 14 && sy > c.top - 14 && sy < c.bottom + 14);
      return sx > 24 && sx < this.w - 24 && sy > 24 && sy < this.h - 24 && !covered;
    });
    if (seen) return;
    const [xs, ys] = [places.map((p) => p[0]), places.map((p) => p[1])];
    const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const fits = 0.7 * Math.min(this.w / Math.max(x1 - x0, 1e-6), this.h / Math.max(y1 - y0, 1e-6));
    const scale = Math.min(this.now.scale, Math.max(fits, this.home().scale));
    const [cx, cy] = [(this.w + this.left) / 2, this.h / 2];
    this.moveTo({ scale, tx: cx - ((x0 + x1) / 2) * scale, ty: cy - ((y0 + y1) / 2) * scale });
  }

  screen(x, y) {
    const { scale, tx, ty } = this.now;
    return [x * scale + tx, y * scale + ty];
  }

  map(sx, sy) {
    const { scale, tx, ty } = this.now;
    return [(sx - tx) / scale, (sy - ty) / scale];
  }
}
