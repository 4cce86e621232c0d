"""Figure of spaces side by side: the map of each, coloured by tissue and dataset, above its measures.

Legend: P points (one gene in one dataset each).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from musegnn.analysis.colors import dataset_colors
from musegnn.data_store.atomic_files import atomic_file
from musegnn.random import stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

INK, SOFT = "#1d2129", "#6c7280"
PANEL_INCHES, LEGEND_INCHES = 3.9, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One space of the figure: title, coordinates of its points (P, 2), and one line of measures under the map."""

    title: str
    layout: ArrayLike
    note: str = ""


def draw_maps(
    path: Path | str,
    panels: Sequence[Panel],
    dataset: Sequence[str],
    tissue_of: Mapping[str, str],
    *,
    dpi: int = 200,
) -> None:
    """Write the figure as PNG, whole or not at all, equal bytes for equal input.

    Parameters
    ----------
    panels
        Spaces with the same points, side by side.
    dataset
        Dataset of each point, length P.
    tissue_of
        Tissue of each dataset, by name.
    dpi
        Pixels per inch; every map is 3.9 inches wide.
    """
    colors = dataset_colors(tissue_of)
    figure = Figure(figsize=(PANEL_INCHES * len(panels), PANEL_INCHES + 0.75 + LEGEND_INCHES), facecolor="white")
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    color = np.array([colors[name] for name in dataset])
    for n, panel in enumerate(panels):
        low = (LEGEND_INCHES + 0.35) / height
        axes = figure.add_axes(((n + 0.02) / len(panels), low, 0.96 / len(panels), PANEL_INCHES / height))
        _scatter(axes, panel, color)
    _legend(figure, colors, tissue_of)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, metadata={"Software": None})


def _scatter(axes: Axes, panel: Panel, color: NDArray[np.str_]) -> None:
    order = stream(0, "figure order").permutation(len(color))  # mixed, so that no dataset covers the others
    x, y = np.asarray(panel.layout, dtype=np.float64)[order].T
    size = float(np.clip(18_000 / max(len(color), 1), 0.6, 14.0))
    axes.scatter(x, y, s=size, c=color[order], linewidths=0, alpha=0.9)
    axes.set_title(panel.title, loc="left", fontsize=12, fontweight="bold", color=INK)
    axes.set_xlabel(panel.note, loc="left", fontsize=9.5, color=INK, labelpad=6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#dcdfe4")


def _legend(figure: Figure, colors: Mapping[str, str], tissue_of: Mapping[str, str]) -> None:
    """Draw one line per tissue with its datasets, as columns below the maps."""
    families: dict[str, list[str]] = {}
    for name in colors:
        families.setdefault(tissue_of[name], []).append(name)
    marks, labels = [], []
    for tissue, members in families.items():
        marks.append(Line2D([], [], linestyle=""))
        labels.append(tissue)
        marks += [Line2D([], [], marker="o", linestyle="", markersize=6, color=colors[name]) for name in members]
        labels += members
    legend = figure.legend(
        marks,
        labels,
        loc="lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1.0,
        labelcolor=INK,
    )
    for text in legend.get_texts():
        if text.get_text() in families:
            text.set_fontweight("bold")
