// The map as a picture and what it shows as a table, made on this computer.

const VECTOR_POINTS = 20000; // above, the points of an SVG are one picture in it
const LEGEND_WIDTH = 230;
const LEGEND_ROWS = 40;

function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  window.saved = { name, size: blob.size, blob };
}

function saveText(text, name, type = "text/tab-separated-values") {
  saveBlob(new Blob([text], { type }), name.replace(/[^\w.-]+/g, "_"));
}

const themeColor = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Rows of the legend as pictures show it: colours of what is not hidden.
function legendRows(legend) {
  if (legend.coloring.startsWith("n:")) return [];
  const { values } = legend.atlas.categories[legend.coloring];
  const shown = values.map((_, v) => v).filter((v) => !legend.off[legend.coloring].has(v));
  const rows = shown.slice(0, LEGEND_ROWS).map((v) => ({ color: css(legend.palettes[legend.coloring][v]), text: legend.name(legend.coloring, v) }));
  return shown.length > rows.length ? [...rows, { color: "none", text: `and ${shown.length - rows.length} more` }] : rows;
}

function savePng(map, legend) {
  const { ratio, view } = map;
  map.paint();
  const rows = legendRows(legend);
  const canvas = el("canvas");
  canvas.width = (view.w + (rows.length ? LEGEND_WIDTH : 0)) * ratio;
  canvas.height = view.h * ratio;
  const pen = canvas.getContext("2d");
  pen.fillStyle = themeColor("--map");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(map.points.canvas ?? map.points.gl.canvas, 0, 0);
  map.overlay.paint(pen, ratio);
  drawLegend(pen, rows, view.w);
  map.overlay.paint();
  canvas.toBlob((blob) => saveBlob(blob, "map.png"), "image/png");
}

function drawLegend(pen, rows, left) {
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  rows.forEach(({ color, text }, n) => {
    const y = 28 + 19 * n;
    if (color !== "none") {
      pen.fillStyle = color;
      pen.beginPath();
      pen.arc(left + 18, y, 5, 0, 7);
      pen.fill();
    }
    pen.font = `400 12.5px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillStyle = themeColor("--ink");
    pen.fillText(text.length > 28 ? text.slice(0, 27) + "…" : text, left + 30, y);
  });
}

// Takes the strokes of a canvas and writes them as SVG.
class SvgPen {
  constructor(measure) {
    Object.assign(this, { measure, parts: [], shift: null, globalAlpha: 1, lineWidth: 1, strokeStyle: "#000", fillStyle: "#000", font: "", path: "" });
  }

  setTransform() {}
  setLineDash() {}
  save() { this.kept = { globalAlpha: this.globalAlpha, shift: this.shift }; }
  restore() { Object.assign(this, this.kept); }
  transform(a, b, c, d, e, f) { this.shift = `matrix(${[a, b, c, d, e, f].map((v) => v.toFixed(3)).join(" ")})`; }
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${x.toFixed(1)} ${y.toFixed(1)}`; }
  lineTo(x, y) { this.path += `L${x.toFixed(1)} ${y.toFixed(1)}`; }
  closePath() { this.path += "Z"; }
  arc(x, y, r) { this.path += `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`; }
  measureText(text) { this.measure.font = this.font; return this.measure.measureText(text); }
  fill() { this.parts.push(svg("path", { d: this.path, fill: this.fillStyle, "fill-opacity": this.globalAlpha })); }

  stroke(path) {
    const node = svg("path", { d: path?.text ?? this.path, fill: "none", stroke: this.strokeStyle, "stroke-opacity": this.globalAlpha, "stroke-width": this.lineWidth });
    if (this.shift) node.setAttribute("transform", this.shift);
    this.parts.push(node);
  }

  text(text, x, y, style) {
    const [, weight, size] = this.font.match(/^(\d+) ([\d.]+)px/) ?? [0, 400, 12];
    this.parts.push(svg("text", { x: x.toFixed(1), y: y.toFixed(1), "font-weight": weight, "font-size": size, "dominant-baseline": "central", opacity: this.globalAlpha, ...style }, text));
  }

  strokeText(text, x, y) { this.text(text, x, y, { fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth, "stroke-linejoin": "round" }); }
  fillText(text, x, y) { this.text(text, x, y, { fill: this.fillStyle }); }
}

function saveSvg(map, legend) {
  const { view, atlas, state } = map;
  const rows = legendRows(legend);
  const [w, h] = [view.w + (rows.length ? LEGEND_WIDTH : 0), view.h];
  const picture = svg("svg", { xmlns: "http://www.w3.org/2000/svg", width: w, height: h, viewBox: `0 0 ${w} ${h}`, "font-family": "Inter, 'Segoe UI', Helvetica, Arial, sans-serif" },
    svg("title", {}, atlas.title), svg("rect", { width: w, height: h, fill: themeColor("--map") }));
  const seen = map.grid.visible(state, VECTOR_POINTS);
  if (seen) {
    for (const which of [DIM, SHOWN]) {
      const group = svg("g", { "fill-opacity": which === DIM ? 0.18 : 0.86 });
      for (const i of seen) {
        if (state[i] !== which) continue;
        const [x, y] = map.screen(i);
        group.append(svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: map.radius().toFixed(2), fill: css(map.colors[i]) }));
      }
      picture.append(group);
    }
  } else {
    map.paint();
    picture.append(svg("image", { width: view.w, height: h, href: (map.points.canvas ?? map.points.gl.canvas).toDataURL("image/png") }));
  }
  const pen = new SvgPen(map.overlay.pen);
  map.overlay.paint(pen, 1);
  drawLegend(pen, rows, view.w);
  picture.append(...pen.parts);
  map.overlay.paint();
  saveText(new XMLSerializer().serializeToString(picture), "map.svg", "image/svg+xml");
}
