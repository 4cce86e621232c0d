"""Files of a contrast: tables, one JSON document, a volcano plot, and a heat map of partners gained and lost."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from musegnn.analysis.certainty import marked_names
from musegnn.analysis.plots import volcano
from musegnn.data_store.atomic_files import atomic_file, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from matplotlib.axes import Axes

    from musegnn.analysis.comparison import Contrast

ROWS, COLUMNS = 25, 40
SIGNIFICANT = 4


def folder_name(a: str, b: str) -> str:
    """Return the name of the folder of a contrast.

    Examples
    --------
    >>> folder_name("condition=control", "stim_1,stim_2")
    'contrast-condition.control-stim_1.stim_2'
    """
    return "-".join(["contrast", *(re.sub(r"[^A-Za-z0-9_.]+", ".", text)[:60] for text in (a, b))])


def write_contrast(result: Contrast, folder: Path, *, genes: Collection[str] | None = None) -> list[Path]:
    """Write ``genes.tsv``, ``pairs.tsv``, ``modules.tsv``, ``contrast.json``, ``volcano.png`` and ``partners.png``.

    The volcano plot marks `genes`, or the most changed.

    Returns
    -------
    list of pathlib.Path
        The files, in this order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"genes": result.genes, "pairs": result.pairs, "modules": result.modules}
    for name, table in tables.items():
        write_file(folder / f"{name}.tsv", table.to_csv(sep="\t", index=False, float_format=f"%.{SIGNIFICANT}g"))
    document = result.summary | {
        name: json.loads(table.to_json(orient="records", double_precision=6)) for name, table in tables.items()
    }
    write_file(folder / "contrast.json", json.dumps(document, indent=1) + "\n")
    a, b = ("+".join(result.summary[side]) for side in ("a", "b"))
    write_figure(folder / "volcano.png", lambda axes: volcano(result, genes=genes, axes=axes), (6.4, 5.2))
    write_figure(folder / "partners.png", lambda axes: _partners(axes, result, a, b), (10.5, 6.4))
    return [folder / f"{name}.tsv" for name in tables] + [
        folder / name for name in ("contrast.json", "volcano.png", "partners.png")
    ]


def write_figure(path: Path, draw: Callable[[Axes], object], size: tuple[float, float]) -> None:
    """Write what a function draws on axes as PNG, whole or not at all; `size` is in inches."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot())
    with atomic_file(path) as aside:
        figure.savefig(aside, format="png", dpi=150, metadata={"Software": None})


def _partners(axes: Axes, result: Contrast, a: str, b: str) -> None:
    """Draw t of the most changed genes against the partners that change most with them."""
    rows = result.genes["gene"].head(ROWS).tolist()
    names = dict(zip(result.genes["gene"], marked_names(result.genes), strict=True))
    pairs = result.pairs
    both = [(pairs["gene"], pairs["partner"], pairs["t"]), (pairs["partner"], pairs["gene"], pairs["t"])]
    t = {(gene, partner): value for columns in both for gene, partner, value in zip(*columns, strict=True)}
    weight: dict[str, float] = {}
    for (gene, partner), value in t.items():
        if gene in rows:
            weight[partner] = weight.get(partner, 0.0) + abs(value)
    columns = sorted(weight, key=lambda name: (-weight[name], name))[:COLUMNS]
    image = np.array([[t.get((gene, partner), 0.0) for partner in columns] for gene in rows]).reshape(len(rows), -1)
    limit = float(np.quantile(np.abs(image), 0.98)) if image.size else 1.0
    shown = axes.imshow(image, cmap="PuOr_r", vmin=-max(limit, 1.0), vmax=max(limit, 1.0), aspect="auto")
    axes.set_xticks(range(len(columns)), [names.get(name, name) for name in columns], rotation=90, fontsize=6)
    axes.set_yticks(range(len(rows)), [names[name] for name in rows], fontsize=7)
    axes.set_title(f"partners gained (orange) and lost (purple) in {b} against {a}", fontsize=10)
    axes.figure.colorbar(shown, ax=axes, label="t, 0 where the pair did not change", shrink=0.7)
