"""scanpy works in the environment that we install: neighbours of many rows, a layout, a plot."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import anndata as ad
import numpy as np
import pytest

pytest.importorskip("scanpy")
BROKEN = tuple(map(int, version("pynndescent").split(".")[:2])) >= (0, 6)


@pytest.mark.slow
@pytest.mark.skipif(BROKEN, reason="scanpy with a pynndescent that `musegnn[bio]` rules out: install again")
def test_neighbours_umap_and_plots(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import scanpy as sc

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 12))
    label = rng.integers(0, 3, 4500)
    genes = ad.AnnData((centres[label] + 0.2 * rng.normal(size=(4500, 12))).astype(np.float32))
    genes.obs["cluster"] = [f"c{k}" for k in label]
    genes.obs["cluster"] = genes.obs["cluster"].astype("category")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(genes, use_rep="X", metric="cosine")  # more than 4096 rows: another way than fewer
        rows, columns = genes.obsp["connectivities"].nonzero()
        assert (label[rows] == label[columns]).mean() > 0.99
        few = genes[:400].copy()
        sc.pp.neighbors(few, use_rep="X", metric="cosine")
        sc.tl.umap(few)
        assert few.obsm["X_umap"].shape == (400, 2)
        figure = sc.pl.umap(few, color="cluster", show=False, return_fig=True)
        figure.savefig(tmp_path / "umap.png")
    assert (tmp_path / "umap.png").stat().st_size > 1000
