"""Plots of what a list of genes does in each context, on the axes given or on new ones, which are returned.

The UpSet plot follows Lex et al. 2014 (IEEE TVCG 20:1983): bars of the sizes of exclusive intersections above a matrix
that says which sets meet. It is drawn here because the library of that name assigns to copies of its tables, which
pandas 2 warns of and pandas 3 ignores.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from musegnn.analysis.certainty import marked_names
from musegnn.analysis.gene_lists import list_change, sets_near, shared_factors
from musegnn.text import some_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

    from musegnn.analysis.comparison import Contrast
    from musegnn.analysis.gene_lists import Context

FDR = 0.05
LABELLED = 20
INK, SOFT, FAINT, GAINED, LOST = "#1d2129", "#a9b0bc", "#eceef1", "#c2410c", "#1d4ed8"
MOST_COLUMNS, NAMED, LETTERS = 24, 6, 48
MANY = 5  # labels that stand side by side
BUBBLE = 260.0  # area of the largest bubble in points squared


def factor_upset(
    embeddings: AnnData,
    genes: Collection[str],
    factors: Collection[str],
    *,
    per: Context = "tissue",
    fdr: float = FDR,
    axes: Axes | None = None,
) -> Axes:
    """Draw which transcription factors share a list of genes in which contexts.

    Parameters
    ----------
    embeddings, genes, factors, per
        As for :func:`musegnn.analysis.gene_lists.shared_factors`.
    fdr
        Largest false discovery rate at which a factor counts in a context.
    axes
        Axes to draw on.
    """
    table = shared_factors(embeddings, genes, factors, per=per)
    return draw_upset(indicators(table, fdr=fdr), axes=axes)


def indicators(table: pd.DataFrame, *, fdr: float = FDR) -> pd.DataFrame:
    """Return whether each factor (row) counts in each context (column), of the factors that count in any."""
    marked = table.assign(called=table["q"] <= fdr).pivot(index="factor", columns="context", values="called")
    marked = marked.eq(True)  # noqa: FBT003  absent pairs are no
    return marked[marked.any(axis=1)]


def draw_upset(members: pd.DataFrame, *, axes: Axes | None = None) -> Axes:
    """Draw an UpSet plot of a table of booleans, elements x sets; small intersections are named.

    The axes given hold two further ones: ``axes.child_axes`` are the bars and the matrix.
    """
    axes = _new(axes, 7.0, 4.2)
    axes.set_axis_off()
    names = members.sum().sort_values(kind="stable").index.tolist()  # the largest set on top
    found = members.groupby(names, sort=False).groups if len(members) else {}
    groups = sorted(
        ((key if isinstance(key, tuple) else (key,), sorted(map(str, rows))) for key, rows in found.items()),
        key=lambda group: (-len(group[1]), -sum(group[0]), group[0]),
    )[:MOST_COLUMNS]
    bars = axes.inset_axes((0.24, 0.42, 0.76, 0.53))
    matrix = axes.inset_axes((0.24, 0.0, 0.76, 0.38), sharex=bars)
    x, y = np.arange(len(groups)), np.arange(len(names))
    height = [len(elements) for _, elements in groups]
    bars.bar(x, height, width=0.6, color=INK)
    for k, (_, elements) in enumerate(groups):
        shown = f"{len(elements)}\n{some_of(elements, NAMED)}" if len(elements) <= NAMED else str(len(elements))
        bars.annotate(shown.replace(", ", "\n"), (k, height[k]), (0, 3), textcoords="offset points", ha="center",
                      fontsize=7.5, color=INK)  # fmt: skip
    bars.set_ylim(0, max(height, default=1) * 1.6)
    bars.set_xlim(-0.6, max(len(groups), 6) - 0.4)
    bars.tick_params(bottom=False, labelbottom=False)
    bars.set_ylabel("factors")
    bars.spines[["top", "right"]].set_visible(False)
    for row in y[::2]:
        matrix.axhspan(row - 0.5, row + 0.5, color=FAINT, linewidth=0)
    for k, (inside, _) in enumerate(groups):
        on = np.flatnonzero(inside)
        matrix.scatter(np.full(len(names), k), y, s=46, color=SOFT, zorder=2)
        matrix.plot(np.full(len(on), k), on, "o-", color=INK, markersize=7, linewidth=2, zorder=3)
    sizes = members.sum()
    matrix.set_yticks(y, [f"{name} ({int(sizes[name])})" for name in names])
    matrix.set_ylim(-0.5, len(names) - 0.5)
    matrix.tick_params(left=False, bottom=False, labelbottom=False)
    matrix.spines[:].set_visible(False)
    if not groups:
        bars.annotate("no factor in any", (0.5, 0.5), xycoords="axes fraction", ha="center", color=INK)
    return axes


def set_bubbles(
    embeddings: AnnData,
    genes: Collection[str],
    sets: Mapping[str, Collection[str]],
    *,
    per: Context = "tissue",
    k: int = 100,
    fdr: float = FDR,
    top: int = 20,
    axes: Axes | None = None,
) -> Axes:
    """Draw which gene sets go with a list of genes in which contexts.

    Parameters
    ----------
    embeddings, genes, sets, per, k
        As for :func:`musegnn.analysis.gene_lists.sets_near`.
    fdr, top, axes
        As for :func:`draw_bubbles`.
    """
    table = sets_near(embeddings, genes, sets, per=per, k=k)
    return draw_bubbles(table, fdr=fdr, top=top, axes=axes)


def draw_bubbles(table: pd.DataFrame, *, fdr: float = FDR, top: int = 20, axes: Axes | None = None) -> Axes:
    """Draw a table of enrichments as bubbles, sets x lists: area is the number of shared genes, colour the -log10 q.

    Parameters
    ----------
    table
        Result of :func:`musegnn.analysis.enrichment.enrich`.
    fdr
        Largest false discovery rate that a set must reach in one list to be drawn, and from which a bubble has a rim.
    top
        Largest number of sets, the most significant.
    axes
        Axes to draw on.
    """
    names = table.loc[table["q"] <= fdr, "set"].drop_duplicates().head(top).tolist()[::-1]
    lists = sorted(table["list"].unique().tolist(), key=_by_number)
    part = table[table["set"].isin(names)]
    axes = _new(axes, *bubble_size(table, fdr=fdr, top=top))
    x, y = part["list"].map(lists.index), part["set"].map(names.index)
    largest = max(int(part["k"].max()), 1) if len(part) else 1
    color = -np.log10(np.maximum(part["q"].to_numpy(dtype=np.float64), 1e-300))
    rim = np.where(part["q"] <= fdr, INK, SOFT).tolist()
    area = BUBBLE * part["k"] / largest
    shown = axes.scatter(x, y, s=area, c=color, cmap="PuBu", edgecolors=rim, linewidths=0.8, vmin=0.0)
    axes.set_xticks(range(len(lists)), lists, rotation=90 if len(lists) > MANY else 0)
    axes.set_yticks(range(len(names)), [textwrap.shorten(n, LETTERS, placeholder="…") for n in names], fontsize=8)
    axes.set_xlim(-0.6, max(len(lists), 1) - 0.4)
    axes.set_ylim(-0.7, max(len(names), 1) - 0.3)
    axes.set_axisbelow(True)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    if names:
        axes.figure.colorbar(shown, ax=axes, label="-log10 q", shrink=0.6, pad=0.02)
        steps = sorted({1, max(largest // 2, 1), largest})
        marks = [axes.scatter([], [], s=BUBBLE * n / largest, color=SOFT, label=str(n)) for n in steps]
        axes.legend(handles=marks, title="genes", loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False,
                    fontsize=8, title_fontsize=8)  # fmt: skip
    else:
        axes.annotate(f"no set at a false discovery rate of {fdr:g}", (0.5, 0.5), xycoords="axes fraction", ha="center")
    return axes


def bubble_size(table: pd.DataFrame, *, fdr: float = FDR, top: int = 20) -> tuple[float, float]:
    """Return the width and height in inches that :func:`draw_bubbles` needs."""
    n_sets = min(table.loc[table["q"] <= fdr, "set"].nunique(), top)
    return 5.0 + 0.34 * table["list"].nunique(), 2.0 + 0.27 * n_sets


def volcano(found: Contrast, *, genes: Collection[str] | None = None, axes: Axes | None = None) -> Axes:
    """Draw the change of each gene between two conditions against its p-value.

    Right of 0 lie genes whose co-expression is stronger in the second condition.

    Parameters
    ----------
    found
        Result of :func:`musegnn.analysis.comparison.contrast`.
    genes
        Names of genes to mark, instead of the most changed; the title then says how they rank
        (:func:`musegnn.analysis.gene_lists.list_change`).
    axes
        Axes to draw on.
    """
    axes = _new(axes, 6.4, 5.2)
    table = found.genes
    a, b = ("+".join(found.summary[side]) for side in ("a", "b"))
    toward_b = np.where(table["strength_b"] >= table["strength_a"], 1.0, -1.0)
    x = toward_b * np.log2(np.maximum(table["change"].to_numpy(), 1.0))
    y = -np.log10(table["p_value"].to_numpy())
    called = (table["q_value"] < FDR).to_numpy()
    color = np.where(~called, SOFT, np.where(toward_b > 0, GAINED, LOST))
    axes.scatter(x, y, s=np.where(called, 16, 7), c=color.tolist(), linewidths=0)
    title = f"{int(called.sum())} of {len(table)} genes changed (false discovery rate 5 %)"
    named = np.flatnonzero(called)[:LABELLED]
    if genes is not None:
        change = list_change(table, genes)
        named = np.flatnonzero(table["gene"].isin(list(genes)))
        axes.scatter(x[named], y[named], s=46, facecolors="none", edgecolors=INK, linewidths=0.9)
        title += f"\n{change.n_genes} listed genes: AUROC of their rank {change.auroc:.2f}, p {change.p_value:.2g}"
        named = named[:LABELLED]
    names = marked_names(table)
    for k in named:
        axes.annotate(names[k], (x[k], y[k]), (4, 4), textcoords="offset points", fontsize=7, color=INK)
    axes.set_xlabel(f"log2 change of co-expression, signed: stronger in {a} (left) or in {b} (right)")
    axes.set_ylabel("-log10 p")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return the key that sorts "cluster 10" after "cluster 9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _new(axes: Axes | None, width: float, height: float) -> Axes:
    if axes is not None:
        return axes
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]
