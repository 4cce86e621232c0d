"""Consensus vectors, and files that the programs they are for open."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from musegnn.analysis.consensus import consensus
from musegnn.analysis.export import SUFFIXES, export
from musegnn.vectors import unit_rows


@pytest.fixture(params=["dataset", "gene", "tissue"])
def vectors(request, annotated):
    return annotated if request.param == "dataset" else consensus(annotated, per=request.param)


def test_the_mean_direction_of_all_copies(annotated):
    found = consensus(annotated)
    assert found.obs["gene_key"].is_unique
    assert found.obs_names.is_unique
    row = found.obs["gene_key"].tolist().index("GENE3")
    copies = unit_rows(annotated.X[(annotated.obs["gene_key"] == "GENE3").to_numpy()])
    assert len(copies) == 3 == found.obs["n_datasets"].iloc[row]
    mean = copies.mean(axis=0)
    np.testing.assert_allclose(found.X[row], mean / np.linalg.norm(mean), rtol=1e-6)
    assert found.obs["agreement"].iloc[row] == pytest.approx(np.linalg.norm(mean))
    assert found.obs["gene"].iloc[row] == "GENE3"  # human twice, Gene3 of mouse once
    np.testing.assert_allclose(np.linalg.norm(found.X, axis=1), 1.0, rtol=1e-6)


def test_a_consensus_is_nearer_to_the_gene_than_its_copies(annotated):
    """The vectors are a direction of the gene with noise: means hold less of it."""
    found = consensus(annotated)
    shared = found.obs["n_datasets"].to_numpy() == 3
    held_out = consensus(annotated[(annotated.obs["dataset"] != "lung_rna").to_numpy()])
    near = pd.Series(range(len(held_out)), index=held_out.obs["gene_key"])
    mine = annotated[(annotated.obs["dataset"] == "lung_rna").to_numpy()]
    keys = [key for key in found.obs["gene_key"][shared] if key in near.index]
    own = unit_rows(mine.X)[[mine.obs["gene_key"].tolist().index(key) for key in keys]]
    to_mean = np.einsum("kd,kd->k", own, held_out.X[near[keys]])
    single = unit_rows(annotated[(annotated.obs["dataset"] == "brain_visium").to_numpy()].X)
    names = annotated.obs["gene_key"][(annotated.obs["dataset"] == "brain_visium").to_numpy()].tolist()
    to_one = np.einsum("kd,kd->k", own, single[[names.index(key) for key in keys]])
    assert to_mean.mean() > to_one.mean()


def test_one_row_per_tissue(annotated):
    found = consensus(annotated, per="tissue")
    assert set(found.obs["tissue"]) == {"lung", "brain"}
    both = found.obs[found.obs["gene_key"] == "GENE3"]
    assert both["n_datasets"].tolist() == [2, 1]
    assert found.obs_names.is_unique


def test_names_of_several_genes_become_keys(annotated):
    annotated.obs["gene_key"] = annotated.obs["species"].astype(str) + ":" + annotated.obs["gene_key"].astype(str)
    annotated.obs["gene"] = [name.upper() for name in annotated.obs["gene"]]
    found = consensus(annotated)
    row = found.obs["gene_key"].tolist().index("mouse:GENE3")
    assert found.obs["gene"].iloc[row] == "mouse:GENE3"
    assert found.obs_names.is_unique


@pytest.mark.parametrize("kind", sorted(SUFFIXES))
def test_equal_input_gives_equal_bytes_without_pickle(vectors, tmp_path, kind):
    for name in "ab":
        export(vectors.copy(), tmp_path / name, format=kind)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"pickle" not in (tmp_path / "a").read_bytes()


def test_numpy_and_pandas_open_them(vectors, tmp_path):
    export(vectors, tmp_path / "v.npz", format="npz")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        named = dict(found)
    assert len(named) == vectors.n_obs
    export(vectors, tmp_path / "v.tsv", format="tsv")
    table = pd.read_csv(tmp_path / "v.tsv", sep="\t", index_col=0)
    np.testing.assert_array_equal(table.to_numpy(np.float32), vectors.X)
    for name, row in zip(table.index, vectors.X, strict=True):
        np.testing.assert_array_equal(named[name.replace("/", "%2F")], row)
    export(vectors, tmp_path / "v.parquet", format="parquet")
    frame = pd.read_parquet(tmp_path / "v.parquet")
    np.testing.assert_array_equal(np.stack(frame["vector"]), vectors.X)
    assert frame["gene"].tolist() == vectors.obs["gene"].astype(str).tolist()


def test_gensim_opens_word2vec_text(vectors, tmp_path):
    gensim = pytest.importorskip("gensim.models")
    export(vectors, tmp_path / "v.txt", format="word2vec")
    found = gensim.KeyedVectors.load_word2vec_format(tmp_path / "v.txt", binary=False)
    np.testing.assert_array_equal(found.vectors, vectors.X)
    assert len(found.key_to_index) == vectors.n_obs


def test_scanpy_opens_h5ad(vectors, tmp_path):
    sc = pytest.importorskip("scanpy")
    export(vectors, tmp_path / "v.h5ad", format="h5ad")
    found = sc.read_h5ad(tmp_path / "v.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.neighbors(found, use_rep="X", metric="cosine", n_neighbors=5)
    assert isinstance(found, ad.AnnData)
    assert found.obsp["distances"].nnz > 0
