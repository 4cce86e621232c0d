// What lies over the points: contours, lines to the nearest genes, marked points, names and the lasso.

const COPIES_NAMED = 12;

class Overlay {
  constructor(map) {
    this.map = map;
    this.canvas = $("overlay");
    this.pen = this.canvas.getContext("2d");
    this.ring = $("ring");
    this.path = null;
  }

  paint(pen = this.pen, ratio = this.map.ratio) {
    const { map } = this;
    const { view, state, marks } = map;
    const theme = getComputedStyle(document.documentElement);
    const [ink, paper] = [theme.getPropertyValue("--ink").trim(), theme.getPropertyValue("--map").trim()];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (pen === this.pen) pen.clearRect(0, 0, view.w, view.h);
    if (map.settled) map.density.paint(pen, ink, state);
    const labels = map.labels;
    labels.begin(pen, ink, paper, map.covers());
    const r = Math.max(4, map.radius() + 1.6);
    const { focus, copies, near, many } = marks;
    for (const i of many) this.disc(pen, i, r - 0.5, paper, 1.2);
    if (focus >= 0) {
      const [fx, fy] = map.screen(focus);
      pen.lineWidth = 1;
      for (const { point, score } of near) {
        pen.globalAlpha = 0.12 + 0.4 * Math.max(0, score);
        pen.strokeStyle = css(map.colors[point]);
        pen.beginPath();
        pen.moveTo(fx, fy);
        pen.lineTo(...map.screen(point));
        pen.stroke();
      }
      pen.globalAlpha = 1;
      for (const { point } of near) this.disc(pen, point, r - 1, paper, 1);
      for (const i of copies) this.disc(pen, i, r + 0.5, ink, 1.6);
      this.disc(pen, focus, r + 2, ink, 2.4);
      this.name(focus, { weight: 650, size: 13.5, gap: r + 3 });
      if (copies.length <= COPIES_NAMED) for (const i of copies) this.name(i, { weight: 600, size: 12, gap: r + 2 });
      for (const { point } of near) this.name(point, { gap: r });
    }
    for (const i of many.slice(0, 400)) this.name(i, { weight: 600, size: 12, gap: r });
    if (focus < 0 && !many.length) labels.writeGroups();
    labels.writeGenes(state, r);
    if (this.path && pen === this.pen) this.paintPath(theme.getPropertyValue("--accent").trim());
    pen.globalAlpha = 1;
  }

  name(i, style) {
    const [x, y] = this.map.screen(i);
    const { w, h } = this.map.view;
    if (x >= 0 && y >= 0 && x <= w && y <= h) this.map.labels.write(this.map.atlas.gene(i), x, y, style);
  }

  disc(pen, i, r, edge, width) {
    const [x, y] = this.map.screen(i);
    pen.beginPath();
    pen.arc(x, y, r, 0, 7);
    pen.fillStyle = css(this.map.colors[i]);
    pen.fill();
    pen.lineWidth = width;
    pen.strokeStyle = edge;
    pen.stroke();
  }

  // The ring around the point under the pointer is an element of its own, so that hovering paints nothing anew.
  mark(i) {
    this.ring.hidden = i < 0;
    if (i < 0) return;
    const [x, y] = this.map.screen(i);
    const r = Math.max(5, this.map.radius() + 3);
    this.ring.style.width = this.ring.style.height = `${2 * r}px`;
    this.ring.style.transform = `translate(${x - r}px, ${y - r}px)`;
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
}
