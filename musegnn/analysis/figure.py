"""One picture of a run: the map by dataset and by modality, and how well genes are found again.

Legend: P points (one gene in one dataset each).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from musegnn.analysis.export import atomic_file
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

PALETTE = ("#3f7fc1", "#e98a3c", "#45a36b", "#d65a5a", "#8d73c9", "#22adb0", "#cfa22b", "#c7609d", "#84933f", "#94715c")
INK, SOFT, ACCENT, PALE = "#1d2129", "#6c7280", "#2f6fb5", "#c3cfdd"


def draw_figure(path: Path | str, embeddings: AnnData, evaluation: Mapping[str, Any], *, dpi: int = 200) -> None:
    """Draw the figure as PNG, whole or not at all, equal bytes for equal input.

    Parameters
    ----------
    path
        The file.
    embeddings
        Annotated embeddings, one row per dataset x gene (see :func:`musegnn.analysis.annotate.annotate`): ``obs`` with
        dataset and modality, ``obsm["X_umap"]`` (P, 2).
    evaluation
        Content of ``evaluation.json``; without it the bars are left out.
    dpi
        Pixels per inch; the figure is 11.5 inches wide, 8 without bars.
    """
    figure = Figure(figsize=(11.5 if evaluation else 8.0, 4.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    ratios = [1.0, 1.0, 0.85] if evaluation else [1.0, 1.0]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios)
    _scatter(axes[0], embeddings, "dataset", "Genes by dataset")
    _scatter(axes[1], embeddings, "modality", "Genes by modality")
    if evaluation:
        _bars(axes[2], evaluation)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, metadata={"Software": None})


def _scatter(axes: Axes, embeddings: AnnData, column: str, title: str) -> None:
    text = embeddings.obs[column].astype(str).to_numpy()
    values, code = np.unique(text, return_inverse=True)
    color = np.array([PALETTE[n % len(PALETTE)] for n in range(len(values))])
    order = stream(0, "figure order").permutation(embeddings.n_obs)  # mixed, so that no dataset covers the others
    x, y = np.asarray(embeddings.obsm["X_umap"])[order].T
    size = float(np.clip(30_000 / max(embeddings.n_obs, 1), 0.6, 14.0))
    axes.scatter(x, y, s=size, c=color[code[order]], linewidths=0, alpha=0.8)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    marks = [Line2D([], [], marker="o", linestyle="", markersize=5, color=c) for c in color]
    axes.legend(
        marks,
        values.tolist(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=2 if len(values) > 3 else len(values),
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=1.2,
        labelcolor=INK,
    )


def _bars(axes: Axes, evaluation: Mapping[str, Any]) -> None:
    models = {name: model["retrieval"]["held_out"]["overall"] for name, model in evaluation["models"].items()}
    names = list(models)[::-1]
    score = [models[name]["mrr"] or 0.0 for name in names]
    ours = str(evaluation["subject"])
    axes.barh(range(len(names)), score, height=0.62, color=[ACCENT if name == ours else PALE for name in names])
    top = max([*score, 1e-9])
    for place, value in enumerate(score):
        axes.text(value + 0.02 * top, place, f"{value:.3f}", va="center", fontsize=8.5, color=INK)
    chance = models[ours]["chance_mrr"]
    if chance is not None:
        axes.axvline(chance, color=SOFT, linewidth=1, linestyle=(0, (3, 2)))
        axes.text(chance + 0.01 * top, len(names) - 0.45, "chance", fontsize=8, color=SOFT, va="bottom")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=9, color=INK)
    axes.set_xlim(0, 1.18 * top)
    axes.set_ylim(-0.6, len(names) - 0.1)
    axes.set_title("Held-out genes found again", loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel("mean reciprocal rank over pairs of datasets", fontsize=8.5, color=SOFT)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=8, labelcolor=SOFT)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#d9d7d1")
