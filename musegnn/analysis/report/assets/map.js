// The scatter: points below, everything else above.

const HIDDEN = 0, DIM = 1, SHOWN = 2;
const NARROW = 760; // pixels, below which the legend folds

class ScatterMap {
  constructor(atlas, handlers) {
    this.atlas = atlas;
    this.handlers = handlers;
    this.stage = $("stage");
    this.marks = { focus: -1, copies: [], near: [], many: [] };
    this.colors = new Uint32Array(atlas.n);
    this.state = new Uint8Array(atlas.n).fill(SHOWN);
    this.hovered = -1;
    this.view = new View(atlas, () => { this.draw(); handlers.moved(); });
    this.grid = new Grid(atlas, this.view);
    this.points = WebglPoints.create($("points"), atlas, this.view) ?? new CanvasPoints($("points"), atlas, this.view);
    this.points.restored = () => this.refresh();
    this.density = new Density(this.grid, this.view);
    this.labels = new Labels(atlas, this.grid, this.view);
    this.overlay = new Overlay(this);
    this.gestures = new Gestures(this, this.overlay.canvas);
    new ResizeObserver(() => this.resize()).observe(this.stage);
    this.resize();
  }

  resize() {
    const box = this.stage.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [w, h] = [Math.round(box.width * this.ratio), Math.round(box.height * this.ratio)];
    this.points.resize(w, h);
    Object.assign(this.overlay.canvas, { width: w, height: h });
    this.view.resize(box.width, box.height, box.width > NARROW ? 200 : 0);
    this.draw();
  }

  // Colours or states have changed. `shape` says that other points are shown, which changes contours and names.
  refresh(shape = true) {
    this.points.update(this.colors, this.state);
    this.dimmed = this.state.includes(DIM);
    this.labels.invalidate();
    if (shape) {
      this.density.invalidate();
      this.labels.arrange(this.state);
    }
    this.draw();
  }

  radius() {
    const n = this.atlas.n;
    const base = n < 3000 ? 3.2 : n < 12000 ? 2.5 : n < 40000 ? 1.9 : n < 200000 ? 1.3 : 0.8;
    const small = Math.min(1, Math.max(0.6, this.view.home().scale / 600)); // on small screens points would hide one another
    return Math.min(8, small * base * this.view.closeness ** (n < 200000 ? 0.35 : 0.5));
  }

  draw() {
    if (this.pending || !this.view.now) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
      this.overlay.paint();
      this.overlay.mark(this.hovered);
    });
  }

  paint() {
    const theme = getComputedStyle(document.documentElement);
    const dark = document.documentElement.dataset.dark === "1";
    const crowd = Math.min(1, Math.max(0, Math.log10(this.atlas.n / 1e5)));
    const layers = [{ state: SHOWN, opacity: Math.min(0.9, 0.86 - 0.36 * crowd + 0.1 * Math.log2(Math.max(1, this.view.closeness))) }];
    if (this.dimmed) layers.unshift({ state: DIM, opacity: (dark ? 0.2 : 0.16) * (1 - 0.5 * crowd) });
    this.points.paint({ ratio: this.ratio, radius: this.radius(), paper: pack(...hex(theme.getPropertyValue("--map").trim())), layers });
  }

  screen(i) { return this.view.screen(...this.grid.place(i)); }

  at(x, y) { return this.grid.at(x, y, this.state); }

  inside(polygon) { return this.grid.inside(polygon, this.state); }

  // What covers the map: legend and tools.
  covers() {
    const box = this.stage.getBoundingClientRect();
    return [...this.stage.querySelectorAll(".card")].map((card) => {
      const c = card.getBoundingClientRect();
      return { left: c.left - box.left, right: c.right - box.left, top: c.top - box.top, bottom: c.bottom - box.top };
    });
  }

  // Bring points into view, out of the way of the legend.
  reveal(points) { this.view.reveal(points.map((i) => this.grid.place(i)), this.covers()); }

  hover(i, x = 0, y = 0) {
    if (i !== this.hovered) {
      this.hovered = i;
      this.overlay.mark(i);
    }
    this.handlers.hover(i, x, y);
  }
}
