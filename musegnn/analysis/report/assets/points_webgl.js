// The points by WebGL 2: 16-bit places and one word of colour per point lie on the GPU; the alpha of the word is the state.

const VERTEX = `#version 300 es
in vec2 place; in vec4 tint;
uniform vec4 view; uniform float size; uniform float state; uniform float opacity;
out vec4 color;
void main() {
  vec2 at = vec2(place.x, 1.0 - place.y) * view.xy + view.zw;
  gl_Position = vec4(abs(tint.a * 255.0 - state) < 0.5 ? at : vec2(4.0), 0.0, 1.0);
  gl_PointSize = size;
  color = vec4(tint.rgb * opacity, opacity);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec4 color; uniform float size; out vec4 ink;
void main() {
  float edge = clamp(0.5 * size - length(gl_PointCoord - 0.5) * size, 0.0, 1.0);
  if (edge <= 0.0) discard;
  ink = color * edge;
}`;

class WebglPoints {
  static warmUp(canvas) {
    return canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, preserveDrawingBuffer: true });
  }

  // Null where the browser has no WebGL 2.
  static create(canvas, atlas, view) {
    const gl = WebglPoints.warmUp(canvas);
    return gl && new WebglPoints(gl, atlas, view);
  }

  constructor(gl, atlas, view) {
    Object.assign(this, { gl, atlas, view });
    this.kind = "webgl2";
    this.build();
    gl.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    gl.canvas.addEventListener("webglcontextrestored", () => { this.build(); this.restored?.(); });
  }

  build() {
    const { gl, atlas } = this;
    this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(this.program, shader);
    }
    gl.linkProgram(this.program);
    if (!gl.getProgramParameter(this.program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(this.program));
    gl.useProgram(this.program);
    const places = new Uint16Array(2 * atlas.n);
    for (let i = 0; i < atlas.n; i++) {
      places[2 * i] = atlas.x[i];
      places[2 * i + 1] = atlas.y[i];
    }
    this.attribute("place", places, 2, gl.UNSIGNED_SHORT, gl.STATIC_DRAW);
    this.words = new Uint32Array(atlas.n);
    this.tints = this.attribute("tint", this.words, 4, gl.UNSIGNED_BYTE, gl.DYNAMIC_DRAW);
    this.uniform = Object.fromEntries(["view", "size", "state", "opacity"].map((name) => [name, gl.getUniformLocation(this.program, name)]));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  attribute(name, values, size, type, usage) {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, usage);
    const at = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, true, 0, 0);
    return buffer;
  }

  resize(width, height) {
    Object.assign(this.gl.canvas, { width, height });
    this.gl.viewport(0, 0, width, height);
  }

  // Take over colours and states of all points.
  update(colors, state) {
    const { gl, words } = this;
    for (let i = 0; i < words.length; i++) words[i] = (colors[i] & 0xffffff) | (state[i] << 24);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.tints);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, words);
  }

  // `layers` are states with their opacities, lowest first.
  paint({ ratio, radius, paper, layers }) {
    const { gl, view, uniform } = this;
    const { scale, tx, ty } = view.now;
    const [w, h] = [gl.canvas.width / ratio, gl.canvas.height / ratio];
    const [r, g, b] = [paper & 255, (paper >> 8) & 255, (paper >> 16) & 255];
    gl.clearColor(r / 255, g / 255, b / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform4f(uniform.view, (2 * view.width * scale) / w, (-2 * view.height * scale) / h, (2 * tx) / w - 1, 1 - (2 * ty) / h);
    gl.uniform1f(uniform.size, 2 * radius * ratio + 1);
    for (const { state, opacity } of layers) {
      gl.uniform1f(uniform.state, state);
      gl.uniform1f(uniform.opacity, opacity);
      gl.drawArrays(gl.POINTS, 0, this.atlas.n);
    }
  }

  // Wait until the points are on the screen; for measurements.
  finish() { this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4)); }
}
