// The points without WebGL, blended into image data by hand: 1e5 points take some 10 ms on one core.

class CanvasPoints {
  constructor(canvas, atlas, view) {
    Object.assign(this, { canvas, atlas, view });
    this.kind = "canvas";
    this.context = canvas.getContext("2d", { alpha: false });
    this.colors = new Uint32Array(atlas.n);
    this.state = new Uint8Array(atlas.n);
  }

  resize(width, height) {
    Object.assign(this.canvas, { width, height });
    this.image = this.context.createImageData(width, height);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  update(colors, state) {
    this.colors = colors;
    this.state = state;
  }

  paint({ ratio, radius, paper, layers }) {
    this.words.fill(paper);
    const stamp = this.stamp(radius * ratio);
    for (const { state, opacity } of layers) this.splat(state, stamp, opacity, ratio);
    this.context.putImageData(this.image, 0, 0);
  }

  finish() {}

  // Coverage of an antialiased disc, as offsets into the image and alphas of 0..1.
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

  splat(which, { reach, offset, cover }, opacity, ratio) {
    const { words, state, colors, atlas, view } = this;
    const { x, y, n } = atlas;
    const [w, h] = [this.canvas.width, this.canvas.height];
    const [sx, sy] = [(view.now.scale * ratio * view.width) / 65535, (view.now.scale * ratio * view.height) / 65535];
    const [tx, ty] = [view.now.tx * ratio, view.now.ty * ratio + 65535 * sy];
    const alpha = Int32Array.from(cover, (c) => Math.round(c * opacity * 256));
    const size = offset.length;
    for (let i = 0; i < n; i++) {
      if (state[i] !== which) continue;
      const cx = Math.round(x[i] * sx + tx);
      const cy = Math.round(ty - y[i] * sy);
      if (cx < reach || cy < reach || cx >= w - reach || cy >= h - reach) continue;
      const rb = colors[i] & 0xff00ff;
      const g = colors[i] & 0x00ff00;
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
}
