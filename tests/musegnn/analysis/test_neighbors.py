"""The lists of nearest genes that people ask for, and why a gene has none."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.sparse import csr_matrix

from musegnn.analysis.export import write_h5ad
from musegnn.analysis.neighbors import query, typical_cosines
from musegnn.atlas_file import validate_atlas
from musegnn.errors import InputError
from musegnn.random import stream
from musegnn.run_folder import RunFolder
from musegnn.vectors import neighborhood_similarity, scale_locally, typical_similarity, unit_rows


def test_query_lists_every_copy(adata):
    table = query(adata, "GENE3", k=4)
    assert table["query"].unique().tolist() == ["lung_rna", "brain_visium", "brain_atac"]  # there it is called Gene3
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    assert table.columns.tolist() == [
        "query", "rank", "gene", "gene_id", "dataset", "modality", "tissue", "species", "score", "cosine",
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["balanced", "csls", "cosine"])
@pytest.mark.parametrize("across", [False, True])
def test_query_ranks_by_what_is_asked(adata, by, across):
    table = query(adata, "GENE3", dataset="lung_rna", k=8, by=by, across=across)
    unit = unit_rows(adata.X)
    group = np.unique(adata.obs["dataset"].astype(str), return_inverse=True)[1]
    row = int(np.flatnonzero((adata.obs["gene"] == "GENE3") & (adata.obs["dataset"] == "lung_rna"))[0])
    cosine = unit @ unit[row]
    score = {
        "balanced": cosine - typical_similarity(unit, group)[group[row], group],
        "csls": scale_locally(cosine[None], neighborhood_similarity(unit, group), group, np.array([row]))[0],
        "cosine": cosine,
    }[by]
    allowed = group != group[row] if across else np.arange(len(unit)) != row
    best = np.flatnonzero(allowed)[np.argsort(-score[allowed], kind="stable")[:8]]
    assert table["gene"].tolist() == adata.obs["gene"].iloc[best].tolist()
    assert table["dataset"].tolist() == adata.obs["dataset"].iloc[best].tolist()
    np.testing.assert_allclose(table["score"], score[best], atol=1e-9)
    np.testing.assert_allclose(table["cosine"], cosine[best], atol=1e-6)


def test_annotated_embeddings_give_the_same_lists(adata, tmp_path):
    computed = query(adata, "GENE3", k=6)
    adata.uns["typical_cosines"] = typical_cosines(adata)
    write_h5ad(adata, tmp_path / "e.h5ad")
    stored = query(read_h5ad(tmp_path / "e.h5ad"), "GENE3", k=6)
    pd.testing.assert_frame_equal(stored, computed, atol=1e-6)


@pytest.mark.parametrize("by", ["balanced", "csls", "cosine"])
def test_equal_scores_are_in_the_order_of_the_rows(adata, by):
    adata.X[:] = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]]
    table = query(adata, "GENE3", dataset="lung_rna", k=5, by=by)
    assert table["gene"].tolist() == ["GENE0", "GENE1", "GENE2", "GENE4", "GENE5"]


def test_query_finds_by_identifier_and_without_case(adata):
    assert query(adata, "ENSG00000000003", k=1)["query"].tolist() == ["lung_rna", "brain_visium", "brain_atac"]
    assert len(query(adata, "gEnE3", k=1)) == 3
    far = query(adata, "GENE3", dataset="lung_rna", k=9, across=True)
    assert "lung_rna" not in far["dataset"].tolist()


def test_query_says_what_is_near_and_where_it_is(adata):
    with pytest.raises(InputError, match="GENE33"):
        query(adata, "GENE333")
    only = adata.obs.loc[adata.obs["gene_key"].map(adata.obs["gene_key"].value_counts()) == 1, "gene"].iloc[0]
    with pytest.raises(InputError, match="choose one of: lung_rna"):
        query(adata, only, dataset="brain_atac")
    with pytest.raises(ValueError, match="at least 1"):
        query(adata, "GENE3", k=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of two files whose store holds what a build reports; one gene is in few cells."""
    folder = tmp_path_factory.mktemp("run")
    rng = stream(0, "counts")
    genes = {
        "one": ["GENE3", "GENE400", "Gene401", "RARE", "MT-CO1"],
        "two": ["GENE3", "gene400", "OTHER", "CD3E", "X"],
    }
    for name, names in genes.items():
        counts = rng.poisson(1.0, size=(80, 5)).astype(np.float32)
        if name == "one":
            counts[:, 3] = np.arange(80) < 3
        AnnData(X=csr_matrix(counts), var=pd.DataFrame(index=names)).write_h5ad(folder / f"{name}.h5ad")
    about = {"modality": "scrna", "tissue": "lung", "species": "human"}
    atlas = validate_atlas(
        {
            "datasets": [{"name": name, "path": str(folder / f"{name}.h5ad"), **about} for name in genes],
            "graph": {"n_genes": 2},
        },
        where="test",
    )
    return RunFolder.create(folder / "run", atlas)


@pytest.mark.parametrize(
    ("gene", "why", "fix"),
    [
        (
            "GENE400",
            r"in the input of one \(\d+ of 80 cells\), two \(\d+ of 80 cells\), but not among the 2 genes that",
            "n_genes",
        ),
        ("gene401", r"in the input of one \(\d+ of 80 cells\), but not among", "selection: list"),
        ("RARE", r"detected in fewer than 5 cells in one \(3 of 80 cells\)", "lower graph.min_cells"),
        ("mt-co1", r"left out as mitochondrial in one \(MT-CO1\)", "drop_mitochondrial: false"),
        ("CD3", "in none of the 2 input files that could be read", "try CD3E"),
    ],
)
def test_an_absent_gene_is_explained(adata, run, gene, why, fix):
    with pytest.raises(InputError, match=f"no dataset has a vector of {gene}: {why}") as caught:
        query(adata, gene, run=run)
    assert fix in caught.value.fix


def test_a_gene_that_one_dataset_lacks_is_explained(adata, run):
    adata.obs["dataset"] = adata.obs["dataset"].cat.rename_categories({"lung_rna": "one", "brain_atac": "two"})
    with pytest.raises(InputError, match="OTHER is not a gene of the dataset one: not in its input file") as caught:
        query(_with_gene(adata, "OTHER"), "OTHER", dataset="one", run=run)
    assert caught.value.fix == "choose one of: two"


def test_files_that_are_gone_are_named(adata, run, tmp_path):
    moved = RunFolder(shutil.copytree(run.path, tmp_path / "run"))  # its relative paths lead nowhere
    with pytest.raises(InputError, match="unknown for one, two: the input file is gone or cannot be read") as caught:
        query(adata, "GENE333", run=moved)
    assert "Gene33" in caught.value.fix


def _with_gene(adata, gene):
    row = int(np.flatnonzero(adata.obs["dataset"] == "two")[0])
    for column in ("gene", "gene_id", "gene_key"):
        adata.obs[column] = adata.obs[column].astype(object)
        adata.obs.iloc[row, adata.obs.columns.get_loc(column)] = gene
    return adata
