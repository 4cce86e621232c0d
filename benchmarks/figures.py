"""Draw the README's figure: ``python -m benchmarks.figures map [--to FILE.png]``.

The map of the example atlas in three spaces, laid out and drawn alike, each with its measures: ours, principal
components aligned by Procrustes, and the published recipe. The published recipe takes long to train; its vectors are
kept in a file (:mod:`benchmarks.quality.vectors`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.quality import groups, vectors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from musegnn.api import MuSeGNN
    from musegnn.graph import GraphData

    Vectors = Mapping[str, NDArray[np.floating]]

MAP = groups.ROOT / "docs" / "figures" / "atlas.png"
GROUP, SPLIT, SEED = "atlas", 0, 0
DPI = 110


def draw_map(path: Path) -> None:
    """Compute the three spaces and write the figure."""
    from musegnn.analysis.figure import Panel, draw_maps
    from musegnn.analysis.layout import umap_layout

    with threadpool_limits(1):
        model = vectors.make_model({}, GROUP, SPLIT, SEED, groups.store(GROUP)).train()
        graphs = model.graphs
        spaces: dict[str, Vectors] = {
            "musegnn": model.vectors(),
            "PCA, aligned by Procrustes": _aligned_components(graphs, model),
            **_published(),
        }
        panels = []
        for title, space in spaces.items():
            layout = umap_layout(np.concatenate([space[t.name] for t in graphs]))
            panels.append(Panel(title=title, layout=layout, note=_measures(graphs, space)))
            print(f"{title}: {panels[-1].note}")
    dataset = np.repeat([t.name for t in graphs], [t.n_genes for t in graphs]).tolist()
    draw_maps(path, panels, dataset, {t.name: t.tissue for t in graphs}, dpi=DPI)
    print(path)


def _aligned_components(graphs: Sequence[GraphData], model: MuSeGNN) -> Vectors:
    """Return the baseline ``pca_procrustes`` of the evaluation, with its dimension of the largest joint MRR."""
    from musegnn.evaluation.baselines.alignment import pca_vectors
    from musegnn.evaluation.baselines.candidates import PCA_DIMS, best_alignment

    components = {t.name: pca_vectors(model.records[t.name].profile, max(PCA_DIMS)) for t in graphs}
    _, found = best_alignment(graphs, components, PCA_DIMS)
    return found


def _published() -> dict[str, Vectors]:
    """Return the published recipe by its title: with all of its 2000 rounds, or else 200 at ten times its rates.

    The shorter one is trained where there is no file of either.
    """
    titles = {"published": "published recipe", "published200": "published recipe, 200 rounds"}
    files = {model: vectors.vector_file(model, GROUP, SPLIT, SEED) for model in titles}
    model = next((model for model, path in files.items() if path.is_file()), "published200")
    if not files[model].is_file():
        vectors.make(model, GROUP, SPLIT)
    saved = vectors.load(files[model])
    assert saved is not None
    return {titles[model]: saved.vectors}


def _measures(graphs: Sequence[GraphData], space: Vectors) -> str:
    from musegnn.evaluation.joint import mixing, retrieve_jointly
    from musegnn.evaluation.retrieval import summarize_pairs

    found = summarize_pairs(retrieve_jointly(graphs, space))["overall"]["mrr"]
    return f"joint MRR {found:.4f}, mixing within tissue {mixing(graphs, space)['within_tissue']:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("figure", choices=["map"])
    parser.add_argument("--to", type=Path, metavar="FILE", default=MAP, help="by default docs/figures/atlas.png")
    draw_map(parser.parse_args(arguments).to)


if __name__ == "__main__":
    main()
