// Keys and what they do.

const KEYS = [
  ["/", "search; paste or type several names for a list"], ["↑ ↓", "walk the nearest genes"], ["Enter", "go to that gene"], ["← →", "the same gene in another dataset"],
  ["Esc", "close, clear"], ["+ −", "closer, farther"], ["0", "whole map"], ["← ↑ → ↓", "move the map, when no gene is open"],
  ["V L B", "move, lasso, box"], ["Shift + drag", "lasso"], ["C", "next colouring"], ["D", "contours of density"], ["S", "save picture or table"], ["T", "light or dark"],
  ["1 … 5", "map, training, evaluation, graphs, settings"], ["?", "this list"],
];

function showKeys() {
  $("keys").replaceChildren(el("h2", {}, "Keys"), el("dl", {}, KEYS.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)))),
    el("p", { class: "actions" }, el("button", { onclick: () => $("keys").close() }, "Close")));
  $("keys").showModal();
}

function listenToKeys(page) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest("input:not([type=checkbox]), select, textarea")) return;
    const action = actions(page)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function actions(page) {
  const { map, genePanel } = page;
  const { view } = map;
  const closer = (factor) => () => view.zoom(factor, undefined, undefined, true);
  const views = Object.fromEntries(VIEWS.map((name, n) => [String(n + 1), () => page.go(name)]));
  const common = { ...views, "/": () => page.focusSearch(), "?": showKeys, t: () => page.toggleTheme(), Escape: () => page.escape() };
  if (page.tab !== "map") return common;
  const open = page.chosen >= 0;
  return {
    ...common,
    ArrowDown: () => (open ? genePanel.step(1) : view.pan(0, -60)), ArrowUp: () => (open ? genePanel.step(-1) : view.pan(0, 60)),
    ArrowRight: () => (open ? page.turn(1) : view.pan(-60, 0)), ArrowLeft: () => (open ? page.turn(-1) : view.pan(60, 0)),
    ...(open && genePanel.cursor >= 0 ? { Enter: () => page.pick(genePanel.near[genePanel.cursor].point) } : {}),
    "+": closer(1.6), "=": closer(1.6), "-": closer(1 / 1.6), 0: () => view.fit(),
    v: () => map.gestures.setTool("pan"), l: () => map.gestures.setTool("lasso"), b: () => map.gestures.setTool("box"),
    c: () => page.nextColoring(), d: () => page.toggleContours(), s: () => page.saveMenu(),
  };
}
