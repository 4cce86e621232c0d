// Mouse, pen and fingers on the map.

const MOVE_AFTER = 4; // pixels
const LASSO_STEP = 5;

class Gestures {
  constructor(map, node) {
    Object.assign(this, { map, node });
    this.tool = "pan";
    this.pointers = new Map();
    node.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
      map.view.zoom(Math.exp(-Math.max(-120, Math.min(120, step)) * 0.0022), ...this.place(event));
    }, { passive: false });
    node.addEventListener("dblclick", (event) => map.view.zoom(2, ...this.place(event), true));
    node.addEventListener("pointerdown", (event) => this.down(event));
    node.addEventListener("pointermove", (event) => this.move(event));
    node.addEventListener("pointerup", (event) => this.up(event));
    node.addEventListener("pointercancel", (event) => { map.overlay.path = null; this.pointers.delete(event.pointerId); });
    node.addEventListener("pointerleave", () => map.hover(-1));
  }

  setTool(tool) {
    this.tool = tool;
    this.map.stage.dataset.tool = tool;
    for (const button of document.querySelectorAll("[data-tool].icon"))
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }

  place(event) {
    const box = this.node.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.button !== 0) return;
    this.node.setPointerCapture(event.pointerId);
    const at = this.place(event);
    this.pointers.set(event.pointerId, at);
    this.moved = this.pointers.size > 1;
    this.origin = at;
    this.drawing = event.shiftKey && this.tool === "pan" ? "lasso" : this.tool;
    this.path = this.drawing === "pan" || this.pointers.size > 1 ? null : [at];
    this.map.view.stop();
  }

  move(event) {
    const at = this.place(event);
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      this.map.hover(this.map.at(...at), ...at);
      return;
    }
    if (!this.moved && Math.hypot(at[0] - this.origin[0], at[1] - this.origin[1]) < MOVE_AFTER) return;
    this.moved = true;
    this.map.hover(-1);
    if (this.pointers.size === 2) this.pinch(event.pointerId, last, at);
    else if (!this.path) this.map.view.pan(at[0] - last[0], at[1] - last[1]);
    else if (this.drawing === "box") this.path = [this.origin, [at[0], this.origin[1]], at, [this.origin[0], at[1]]];
    else if (Math.hypot(at[0] - this.path.at(-1)[0], at[1] - this.path.at(-1)[1]) >= LASSO_STEP) this.path.push(at);
    this.pointers.set(event.pointerId, at);
    if (this.path) {
      this.map.overlay.path = this.path;
      this.map.overlay.paint();
    }
  }

  pinch(id, last, at) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const spread = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1;
    this.map.view.zoom(spread(at) / spread(last), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    this.map.view.pan((at[0] - last[0]) / 2, (at[1] - last[1]) / 2);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const path = this.path;
    this.path = this.map.overlay.path = null;
    if (!this.moved) this.map.handlers.pick(this.map.at(...this.place(event)));
    else if (path && path.length > 2) this.map.handlers.select(path.map(([x, y]) => this.map.view.map(x, y)));
    this.map.draw();
  }
}
