"""Inputs that need nothing special: they give a graph and vectors, and no warning that is not due."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix

import musegnn as mg
from musegnn.cluster.build import build_graphs
from musegnn.coexpression.edges import select_edges
from musegnn.config import AtlasConfig, EdgeConfig, GraphConfig
from musegnn.data_store import Store
from musegnn.data_store.formats.arrays import CompressedMatrix
from musegnn.datasets import expand_strata
from musegnn.errors import ConfigError


def grouped(rng, n_cells, n_genes, mean):
    """Draw counts with two groups of genes that go together."""
    factor = rng.gamma(3.0, 1 / 3, (n_cells, 2))
    return rng.poisson(mean * factor[:, np.arange(n_genes) % 2])


def save(path, counts, *, names=None, kind=csr_matrix):
    names = names if names is not None else [f"GENE{i}" for i in range(counts.shape[1])]
    adata = ad.AnnData(kind(counts.astype(np.float32)), var=pd.DataFrame(index=pd.Index(names)))
    adata.obs_names = [f"{path.stem}_{i}" for i in range(len(counts))]
    adata.write_h5ad(path)
    return {"name": path.stem, "path": path, "modality": "scrna", "tissue": "x", "species": "human"}


def build(folder, *datasets, **graph):
    atlas = AtlasConfig(datasets=datasets, graph=GraphConfig(selection="all") if not graph else GraphConfig(**graph))
    store = Store.open_or_create(folder / "store")
    build_graphs(atlas, store, scheduler="synchronous", device="cpu")
    return store, atlas


def codes(record):
    return {warning[:4] for warning in record.report["warnings"]}


@pytest.mark.parametrize("n_genes", [3, 10, 60])
def test_small_panels(n_genes, tmp_path):
    counts = grouped(np.random.default_rng(n_genes), 400, n_genes, 40.0)
    store, _ = build(tmp_path, save(tmp_path / "a.h5ad", counts))
    record = store.read("a")
    assert len(record.genes) == n_genes
    assert not codes(record) & {"W205", "W229", "W230", "W250"}


def test_cells_of_equal_depth(tmp_path):
    rng = np.random.default_rng(0)
    counts = np.stack([rng.multinomial(500, p) for p in rng.dirichlet(np.full(30, 3.0), 300)])
    record = build(tmp_path, save(tmp_path / "a.h5ad", counts))[0].read("a")
    assert record.report["depth"] == {"min": 500.0, "median": 500.0, "max": 500.0}
    assert "W205" not in codes(record)


def test_counts_of_full_length_reads(tmp_path):
    counts = grouped(np.random.default_rng(0), 200, 40, 1.0) * np.geomspace(50, 400_000, 40).astype(int)
    assert counts.max() > 1_700_000
    record = build(tmp_path, save(tmp_path / "a.h5ad", counts))[0].read("a")
    assert np.isfinite(record.pairs.z).all()
    assert record.genes.mean == pytest.approx(counts.mean(axis=0))


def test_columns_of_many_cells_are_read_once(tmp_path, monkeypatch):
    counts = grouped(np.random.default_rng(0), 40_000, 12, 1.0)
    read = []
    real = CompressedMatrix._rows_of_columns

    def counted(self, first, last):
        read.append((first, last))
        return real(self, first, last)

    monkeypatch.setattr(CompressedMatrix, "_rows_of_columns", counted)
    record = build(tmp_path, save(tmp_path / "a.h5ad", counts, kind=csc_matrix))[0].read("a")
    assert read == [(0, 40_000)]
    assert record.report["passes"] > 1


def test_the_order_of_genes_and_cells_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    counts = grouped(rng, 300, 40, 8.0)
    genes, cells = rng.permutation(40), rng.permutation(300)
    names = np.array([f"GENE{i}" for i in range(40)])
    one = build(tmp_path, save(tmp_path / "a.h5ad", counts, names=names))[0].read("a")
    other = build(tmp_path, save(tmp_path / "b.h5ad", counts[cells][:, genes], names=names[genes]))[0].read("b")

    def estimates(record):
        pairs, gene = record.pairs, record.genes.gene
        rows = np.repeat(np.arange(len(gene)), np.diff(pairs.indptr))
        values = zip(pairs.z.tolist(), pairs.estimate.tolist(), strict=True)
        return dict(zip(zip(gene[rows].tolist(), gene[pairs.indices].tolist(), strict=True), values, strict=True))

    first, second = estimates(one), estimates(other)
    assert first.keys() == second.keys()
    np.testing.assert_allclose([first[pair] for pair in first], [second[pair] for pair in first], rtol=0, atol=1e-5)


def test_one_dataset_and_no_rounds_has_vectors(tmp_path):
    counts = grouped(np.random.default_rng(0), 300, 40, 8.0)
    store, atlas = build(tmp_path, save(tmp_path / "a.h5ad", counts))
    vectors = mg.MuSeGNN(store, atlas).train().vectors()["a"]
    assert vectors.shape == (40, atlas.model.dim)
    assert np.isfinite(vectors).all()


def test_one_shared_gene_warns_and_has_vectors(tmp_path, caplog):
    rng = np.random.default_rng(0)
    one = [f"GENE{i}" for i in range(60)]
    other = ["GENE0", *(f"OTHER{i}" for i in range(59))]
    datasets = [
        save(tmp_path / f"{k}.h5ad", grouped(rng, 300, 60, 8.0), names=names) for k, names in (("a", one), ("b", other))
    ]
    store, atlas = build(tmp_path, *datasets)
    assert "W215: a and b share 1 of 60 genes" in caplog.text
    vectors = mg.MuSeGNN(store, atlas).train().vectors()
    assert all(np.isfinite(v).all() for v in vectors.values())


def test_a_gene_without_edges_has_a_vector(tmp_path):
    rng = np.random.default_rng(0)
    counts = np.hstack([grouped(rng, 300, 40, 8.0), rng.poisson(4.0, (300, 1))])
    store, atlas = build(tmp_path, save(tmp_path / "a.h5ad", counts))
    record = store.read("a")
    degree = np.diff(select_edges(record.pairs, record.n_cells, EdgeConfig(rule="by", fdr=1e-4)).indptr)
    assert degree[40] == 0
    assert degree[:40].min() > 0
    atlas = atlas.model_copy(update={"edges": EdgeConfig(rule="by", fdr=1e-4)})
    assert np.isfinite(mg.MuSeGNN(store, atlas).train().vectors()["a"][40]).all()


# What can be known from small files is known before counts are read


@pytest.mark.parametrize(
    ("table", "code"), [("human,mouse\nACTB\n", "E306"), ("rat,mouse\nA,b\n", "E304"), (None, "E306")]
)
def test_tables_are_read_before_counts(table, code, tmp_path):
    path = tmp_path / "orthologs.csv"
    if table is not None:
        path.write_text(table, encoding="utf-8")
    atlas = AtlasConfig(datasets=[save(tmp_path / "a.h5ad", np.ones((60, 3)))], orthologs=path)
    (tmp_path / "a.h5ad").unlink()  # reading it would be another error
    with pytest.raises(ConfigError, match=code):
        build_graphs(atlas, Store.create(tmp_path / "store"), scheduler="synchronous")


def test_lists_of_genes_are_read_before_counts(tmp_path):
    dataset = save(tmp_path / "a.h5ad", np.ones((60, 3)))
    (tmp_path / "a.h5ad").unlink()
    atlas = AtlasConfig(datasets=[dataset], graph={"selection": "list", "genes": tmp_path / "none.txt"})
    with pytest.raises(ConfigError, match="E300"):
        build_graphs(atlas, Store.create(tmp_path / "store"), scheduler="synchronous")


def test_genes_that_are_not_in_the_table_of_orthologs_warn(tmp_path, caplog):
    (tmp_path / "t.csv").write_text("human,mouse\nACTB,Actb\n", encoding="utf-8")
    counts = grouped(np.random.default_rng(0), 100, 10, 8.0)
    atlas = AtlasConfig(datasets=[save(tmp_path / "a.h5ad", counts)], orthologs=tmp_path / "t.csv")
    build_graphs(atlas, Store.create(tmp_path / "store"), scheduler="synchronous", device="cpu")
    assert "W305: none of the genes of a is in the table of orthologs" in caplog.text


def test_missing_labels_make_no_dataset(tmp_path, caplog):
    counts = grouped(np.random.default_rng(0), 300, 20, 8.0)
    dataset = save(tmp_path / "a.h5ad", counts)
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    adata.obs["kind"] = np.repeat(["T cell", "nan", "NA"], 100)
    adata.write_h5ad(tmp_path / "a.h5ad")
    atlas = AtlasConfig(datasets=[dataset | {"by": "kind"}], graph={"selection": "all"})
    store = Store.create(tmp_path / "store")
    assert build_graphs(atlas, store, scheduler="synchronous", device="cpu") == ["a.T_cell"]
    assert store.read("a.T_cell").n_cells == 100
    assert "a: W252: 200 of 300 cells have no label in 'kind'" in caplog.text


def test_labels_of_few_cells_make_no_dataset(tmp_path, caplog):
    counts = grouped(np.random.default_rng(0), 140, 20, 8.0)
    dataset = save(tmp_path / "a.h5ad", counts)
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    adata.obs["kind"] = np.repeat(["T cell", "B cell"], [100, 40])
    adata.write_h5ad(tmp_path / "a.h5ad")
    atlas = expand_strata(AtlasConfig(datasets=[dataset | {"by": "kind"}]))
    assert [entry.name for entry in atlas.datasets] == ["a.T_cell"]
    assert "a: W251: 1 of 2 labels of 'kind' have fewer than 50 cells" in caplog.text
