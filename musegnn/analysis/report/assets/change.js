// What contrasts of the run say of a gene: how much it changes between two conditions, and its partners gained and lost.

const CHANGED_SHOWN = 8;
const CHANGED_GENES = 12;
const KINDS = ["gained", "lost", "turned"];

class Changes {
  constructor(atlas) {
    this.atlas = atlas;
    this.all = atlas.contrasts.map((about, c) => {
      const array = (name) => atlas.lists.array(`${name}:${c}`);
      const [key, first, second] = ["change_key", "pair_first", "pair_second"].map(array);
      const numbers = Object.fromEntries(["change", "p_value", "q_value", "certainty_a", "certainty_b", "n_gained", "n_lost"].map((name) => [name, array(`change_${name}`)]));
      const rank = new Map(Array.from(key, (k, at) => [k, at]));
      return { ...about, c, key, rank, numbers, first, second, za: array("pair_z_a"), zb: array("pair_z_b"), kind: array("pair_kind") };
    });
  }

  // The contrasts that compared a gene, with what they found.
  of(key) {
    return this.all.filter(({ rank }) => rank.has(key)).map((contrast) => {
      const at = contrast.rank.get(key);
      const value = Object.fromEntries(Object.entries(contrast.numbers).map(([name, values]) => [name, values[at]]));
      return { contrast, place: at + 1, ...value, partners: this.partners(contrast, key) };
    });
  }

  // Changed pairs of a gene by kind, the most changed first.
  partners({ first, second, za, zb, kind }, key) {
    const found = { gained: [], lost: [], turned: [] };
    for (let at = 0; at < first.length; at++) {
      const other = first[at] === key ? second[at] : second[at] === key ? first[at] : -1;
      if (other >= 0) found[KINDS[kind[at]]].push({ key: other, za: za[at], zb: zb[at] });
    }
    return found;
  }
}

const small = (p) => (p < 1e-3 ? p.toExponential(0).replace("-", "−") : p.toFixed(3));

// One section per contrast; partners open in the dataset of the gene, or wherever they are.
function changesOf(atlas, i, handlers) {
  const found = handlers.changes?.of(atlas.key(i)) ?? [];
  return found.map((entry) => changeSection(atlas, i, entry, handlers));
}

function changeSection(atlas, i, { contrast, place, change, p_value: p, q_value: q, n_gained: gained, n_lost: lost, certainty_a: ca, certainty_b: cb, partners }, handlers) {
  const z = (value) => value.toFixed(1).replace("-", "−");
  const sure = (value) => (Number.isFinite(value) ? el("span", { class: value < LOW_CERTAINTY ? "doubt" : null }, value.toFixed(2)) : "unknown");
  const pointOf = (key) => { const here = atlas.copyIn(key, atlas.codes("dataset")[i]); return here >= 0 ? here : atlas.pointsOf(key)[0]; };
  const line = ({ key, za, zb }) => {
    const point = pointOf(key);
    return el("li", {}, el("button", { class: "hit", "data-point": point, onclick: () => handlers.pick(point), onpointerenter: () => handlers.point(point), onpointerleave: () => handlers.point(-1) },
      el("b", { class: "clip grow" }, atlas.gene(point)), el("span", { class: "z" }, z(za)), el("span", { class: "soft", "aria-label": "to" }, "→"), el("span", { class: "z" }, z(zb))));
  };
  const part = (kind, total) => (partners[kind].length ? el("details", { class: `part ${kind}`, open: true }, el("summary", {}, `${kind[0].toUpperCase()}${kind.slice(1)}`, el("span", { class: "soft" }, ` ${number(total)}`)),
    el("ol", { class: "near" }, partners[kind].slice(0, CHANGED_SHOWN).map(line)),
    total > CHANGED_SHOWN ? el("p", { class: "soft small" }, `and ${number(total - CHANGED_SHOWN)} more`) : null) : null);
  const called = q < 0.05;
  return el("section", { class: "change", "aria-label": `Change, ${contrast.label}` },
    el("div", { class: "head" }, el("h3", {}, "Change ", el("span", { class: "soft clip" }, contrast.label)), colorButton(contrast, handlers)),
    el("p", { class: "small tight" }, el("b", { class: "verdict" }, called ? "Rewired" : "Not called"), `: ${change.toFixed(2)} times the change of genes like it, number ${number(place)} of ${number(contrast.key.length)}; p ${small(p)}, q ${small(q)}.`),
    el("p", { class: "soft small tight" }, `${plural(gained, "partner")} gained, ${number(lost)} lost. Certainty `, sure(ca), " in the first group, ", sure(cb), " in the second."),
    part("gained", gained), part("lost", lost), part("turned", partners.turned.length));
}

function colorButton(contrast, handlers) {
  return contrast.number ? el("button", { class: "text", onclick: () => handlers.color(`n:${contrast.number}`) }, "Colour the map") : null;
}

// The contrasts of the run, each with the genes that change most.
function changedGenes(atlas, handlers) {
  return (handlers.changes?.all ?? []).map((contrast) => el("section", { class: "changed", "aria-label": `Contrast, ${contrast.label}` },
    el("div", { class: "head" }, el("h3", {}, "Rewired ", el("span", { class: "soft clip" }, contrast.label)), colorButton(contrast, handlers)),
    el("p", { class: "soft small tight" }, `${number(contrast.changed)} of ${plural(contrast.key.length, "gene")} at a false discovery rate of 5 %; the most changed:`),
    el("p", { class: "chips" }, Array.from(contrast.key.subarray(0, CHANGED_GENES), (key) => {
      const point = atlas.pointsOf(key).find((j) => contrast.datasets.includes(atlas.of("dataset", j))) ?? atlas.pointsOf(key)[0];
      return el("button", { class: "chip", onclick: () => handlers.pick(point) }, atlas.gene(point));
    }))));
}
