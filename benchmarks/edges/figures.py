"""Draw the figures of ``docs/coexpression.md``: ``python -m benchmarks.edges.figures RESULTS.csv FOLDER``."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = dict[tuple[str, str], tuple[float, float | None]]

COLOURS = {
    "bh": "#999999",
    "pvalue": "#d55e00",
    "default": "#0072b2",
    "top_k k=50": "#009e73",
    "min_abs_est 0.1": "#cc79a7",
    "shared_axes": "#e69f00",
}
OPTIONS = (
    "counts, clamp",
    "counts, drop",
    "counts, reference",
    "binary, clamp",
    "binary, reference",
    "binary, Bernoulli",
    "counts, clamp, shared axes",
    "counts, clamp, shared axes of all pairs",
)
AGREEMENT = {"same_edge_share_degree_2": "share that are RNA edges of like sign", "spearman_in_edges": "Spearman of z"}


def read_results(path: Path) -> Values:
    """Read value and chance by shape and metric; later rows replace earlier ones."""
    values: Values = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            chance = float(row["baseline_value"]) if row["baseline_value"] else None
            values[row["shape"], row["metric"]] = (float(row["value"]), chance)
    return values


def draw_density(values: Values, path: Path) -> None:
    """Draw density per dataset and rule, and that of half of the cells."""
    pattern = re.compile(r"\S+ \d+x\d+")
    shapes = {shape for shape, metric in values if pattern.fullmatch(shape) and metric == "half_density: bh"}
    ordered = sorted(shapes, key=lambda shape: values[shape, "density: pvalue"][0])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.28 * len(ordered) + 1.5), sharey=True, layout="tight")
    height = np.arange(len(ordered))
    for rule, colour in COLOURS.items():
        whole = np.array([values[shape, f"density: {rule}"][0] for shape in ordered])
        half = np.array([values[shape, f"half_density: {rule}"][0] for shape in ordered])
        left.scatter(whole, height, s=28, color=colour, label=rule, zorder=3)
        right.scatter(half / np.where(whole > 0, whole, np.nan), height, s=28, color=colour, zorder=3)
    left.set(xscale="log", xlim=(1e-5, 1.2), xlabel="density (share of pairs that are edges)")
    left.set_yticks(height, [shape.replace("x600", "") + " cells" for shape in ordered], fontsize=8)
    right.set(xlabel="density with half of the cells / with all", xlim=(0, 1.6))
    right.axvline(1.0, color="black", linewidth=0.8)
    left.legend(fontsize=8, loc="upper left")
    _save(figure, (left, right), path)


def draw_growth(values: Values, path: Path) -> None:
    """Draw density against cells: the same cells repeated, and new ones."""
    repeated = sorted({shape.split(" repeated ")[0] for shape, _ in values if " repeated " in shape})
    chosen = [shape for shape in repeated if "atac" not in shape][-1:]
    fresh = sorted({int(m[1]) for shape, _ in values if (m := re.fullmatch(r"synthetic (\d+)x\d+", shape))})
    figure, panels = plt.subplots(1, len(chosen) + 1, figsize=(5.0 * (len(chosen) + 1), 3.4), layout="tight")
    panels = np.atleast_1d(panels)
    for rule, colour in COLOURS.items():
        for panel, shape in zip(panels, chosen, strict=False):
            times = [t for t in (1, 2, 4, 8, 16) if (f"{shape} repeated {t}x", f"density: {rule}") in values]
            grown = [values[f"{shape} repeated {t}x", f"density: {rule}"][0] for t in times]
            panel.plot(times, grown, "o-", color=colour, label=rule)
            panel.set(title=f"{shape} cells x genes, repeated", xlabel="times", xscale="log", yscale="log")
        made = [values[f"synthetic {n}x600", f"density: {rule}"][0] for n in fresh]
        panels[-1].plot(fresh, made, "o-", color=colour, label=rule)
    panels[-1].set(title="synthetic tissue, new cells", xlabel="cells", xscale="log", yscale="log")
    panels[0].set_ylabel("density")
    panels[-1].legend(fontsize=7)
    _save(figure, panels, path)


def draw_causes(values: Values, path: Path) -> None:
    """Draw the share of significant pairs beside what depth, and region and depth, give alone."""
    shapes = sorted(
        {shape for shape, metric in values if metric == "significant_pairs: depth alone"},
        key=lambda shape: values[shape, "significant_pairs"][0],
    )
    figure, panel = plt.subplots(figsize=(8, 0.3 * len(shapes) + 1.5), layout="tight")
    height = np.arange(len(shapes))
    bars = (
        ("significant_pairs", "data", "#0072b2", 0.0),
        ("significant_pairs: depth alone", "depth alone", "#d55e00", 0.27),
        ("significant_pairs: region and depth alone", "region and depth alone", "#009e73", 0.54),
    )
    for metric, label, colour, shift in bars:
        share = [values.get((shape, metric), (0.0, None))[0] for shape in shapes]
        panel.barh(height - shift, share, 0.25, color=colour, label=label)
    panel.axvline(0.005, color="black", linewidth=0.8, linestyle=":")
    panel.set_yticks(height - 0.27, [shape.split()[0] for shape in shapes], fontsize=8)
    panel.set(xlabel="share of pairs with p < 0.005 (dotted: chance)")
    panel.legend(fontsize=8, loc="lower right")
    _save(figure, (panel,), path)


def draw_accessibility(values: Values, path: Path) -> None:
    """Draw agreement of accessibility with RNA per measurement model, chance as black ticks."""
    shapes = {shape for shape, metric in values if metric == "spearman_in_edges" and shape.endswith("depth total")}
    bases = sorted({shape.split(": ")[0] for shape in shapes})
    figure, panels = plt.subplots(
        len(AGREEMENT), len(bases), figsize=(3.4 * len(bases) + 1.5, 5.2), squeeze=False, sharey=True, layout="tight"
    )
    for row, (metric, label) in enumerate(AGREEMENT.items()):
        for column, base in enumerate(bases):
            panel = panels[row, column]
            found = [values[f"{base}: {option}; depth total", metric] for option in OPTIONS]
            height = -np.arange(len(OPTIONS))
            panel.barh(height, [value for value, _ in found], 0.7, color="#0072b2")
            panel.scatter([chance for _, chance in found], height, marker="|", s=120, color="black", zorder=3)
            panel.set_yticks(height, OPTIONS, fontsize=8)
            panel.set_xlabel(label, fontsize=8)
            if row == 0:
                panel.set_title(base.split(",")[0].replace(" against ", "\nagainst "), fontsize=8)
    _save(figure, panels.ravel(), path)


def _save(figure: plt.Figure, panels: tuple[Axes, ...] | np.ndarray, path: Path) -> None:
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", linewidth=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(results: str, folder: str) -> None:
    """Draw all."""
    values, target = read_results(Path(results)), Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    draw_density(values, target / "edge_density.png")
    draw_growth(values, target / "edge_growth.png")
    draw_causes(values, target / "edge_causes.png")
    draw_accessibility(values, target / "edge_accessibility.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
