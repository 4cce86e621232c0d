// Colours are 32-bit words as canvas image data stores them (little-endian: alpha, blue, green, red).

const CURATED = ["#3f7fc1", "#e98a3c", "#45a36b", "#d65a5a", "#8d73c9", "#22adb0", "#cfa22b", "#c7609d", "#84933f", "#94715c"];
const RAMP = ["#43307a", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

const pack = (r, g, b) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
const hex = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
const css = (word) => `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;

// OKLCH keeps lightness even over hues, so that no category of many shouts.
function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((v) => {
    const x = Math.min(1, Math.max(0, v));
    return Math.round(255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055));
  });
}

// The first ten are chosen by hand; further ones go round the hues by the golden angle, in lightness and strength as well.
function categoryColors(n) {
  const turn = 137.508;
  const more = Array.from({ length: Math.max(0, n - CURATED.length) }, (_, i) =>
    oklch([0.58, 0.72, 0.49, 0.8][i % 4], [0.14, 0.1, 0.12][i % 3], 25 + i * turn));
  return [...CURATED.slice(0, n).map(hex), ...more].map((c) => pack(...c));
}

function rampColor(t) {
  const at = Math.min(1, Math.max(0, t)) * (RAMP.length - 1);
  const low = Math.min(RAMP.length - 2, Math.floor(at));
  const [a, b] = [hex(RAMP[low]), hex(RAMP[low + 1])];
  return pack(...a.map((v, i) => Math.round(v + (b[i] - v) * (at - low))));
}
