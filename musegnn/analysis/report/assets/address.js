// Everything that is seen is in the address: #SUBJECT&key=value&... The subject is nothing, a view (/evaluation), a gene
// (GFAP or GFAP@cortex) or several (GFAP,MBP). Keys: `color`, `off` (hidden values), `at` (x, y, closeness), `vs` (dataset
// compared with), `set` (a gene set), `lasso` (corners), `contours`.

const CORNER_STEPS = 4095;

function writeAddress({ subject = "", color, off, at, vs, set, lasso, contours }) {
  const parts = [subject];
  const add = (key, value) => value && parts.push(`${key}=${value}`);
  add("set", set !== undefined && set !== null ? encodeURIComponent(set) : "");
  add("lasso", lasso && lasso.flat().map((v) => Math.round(v * CORNER_STEPS).toString(36)).join("."));
  add("color", color === "dataset" ? "" : color);
  add("off", Object.entries(off).filter(([, values]) => values.length).map(([c, values]) => `${c}:${values.map((v) => encodeURIComponent(v).replaceAll("~", "%7E")).join("~")}`).join(";"));
  add("vs", vs && encodeURIComponent(vs));
  add("contours", contours ? "" : "0");
  add("at", at && at.map((v, n) => v.toFixed(n < 2 ? 4 : 2)).join(","));
  const text = parts.join("&");
  return text ? `#${text}` : "#";
}

function readAddress(hash) {
  const [subject, ...pairs] = hash.replace(/^#/, "").split("&");
  const read = Object.fromEntries(pairs.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
  const numbers = (text, separator, from) => text.split(separator).map((v) => from(v));
  const state = { subject, color: read.color ?? "dataset", off: {}, vs: read.vs ? decode(read.vs) : null, set: read.set ? decode(read.set) : null, contours: read.contours !== "0" };
  for (const part of read.off ? read.off.split(";") : []) {
    const [category, values] = [part.slice(0, part.indexOf(":")), part.slice(part.indexOf(":") + 1)];
    state.off[category] = values.split("~").map(decode);
  }
  const at = read.at ? numbers(read.at, ",", Number) : [];
  state.at = at.length === 3 && at.every(Number.isFinite) ? at : null;
  const corners = read.lasso ? numbers(read.lasso, ".", (v) => parseInt(v, 36) / CORNER_STEPS) : [];
  state.lasso = corners.length >= 6 && corners.length % 2 === 0 && corners.every(Number.isFinite)
    ? Array.from({ length: corners.length / 2 }, (_, n) => [corners[2 * n], corners[2 * n + 1]]) : null;
  return state;
}

// "GFAP@cortex", "GFAP" or "GFAP,MBP" as names and dataset.
function readSubject(subject) {
  if (subject.includes(",")) return { names: subject.split(",").map(decode).filter(Boolean) };
  const [gene, dataset] = subject.split("@").map(decode);
  return { names: [gene], dataset };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
