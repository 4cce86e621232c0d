"""Graphs depend on what counts as a gene and as a cell, not on how a file spells it."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.edges import critical_z, select_edges
from musegnn.config import DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import ArraySource, open_matrix

MT = ["ND1", "ND2", "CO1", "CO2", "ATP8", "ATP6", "CO3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYB"]
HUMAN_MT = [198888, 198763, 198804, 198712, 228253, 198899, 198938, 198840, 212907, 198886, 198786, 198695, 198727]
SETTINGS = GraphConfig(selection="all")


def about(**settings):
    return DatasetConfig(
        **({"name": "a", "path": "a.h5ad", "modality": "scrna", "tissue": "x", "species": "human"} | settings)
    )


def build(source, config=SETTINGS, **settings):
    return build_dataset(source, about(**settings), config)


def codes(record):
    return {warning[:4] for warning in record.report["warnings"]}


def share_of_pairs(record):
    """Return the share of all pairs with an abs(z) of the published rule."""
    n = len(record.genes)
    return float((np.abs(record.pairs.z) > critical_z(0.005)).sum() / (n * (n - 1)))


@pytest.fixture(scope="module")
def stressed():
    """Make 500 cells of 110 genes and 13 mitochondrial ones, whose share of a cell's counts is beta(2, 4)."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(1.0, 14.0, 110) * rng.lognormal(0.0, 0.25, (500, 1))
    nuclear = rng.poisson(rates)
    share = rng.beta(2.0, 4.0, 500)
    total = rng.poisson(nuclear.sum(axis=1) * share / (1.0 - share))
    mito = np.stack([rng.multinomial(n, np.full(13, 1 / 13)) for n in total])
    return np.hstack([nuclear, mito])


NAMES = [f"GENE{i}" for i in range(110)]
SPELLED = {
    "symbols": NAMES + [f"MT-{gene}" for gene in MT],
    "identifiers": [f"ENSG{i:011d}" for i in [*range(1, 111), *HUMAN_MT]],
    "dots": NAMES + [f"MT.{gene}" for gene in MT],
    "genome": [f"GRCh38_{name}" for name in [*NAMES, *(f"MT-{gene}" for gene in MT)]],
    "colons": NAMES + [f"mt:{gene}" for gene in MT],
}


@pytest.fixture(scope="module")
def expected(stressed):
    return build(ArraySource(csr_matrix(stressed[:, :110]), NAMES))


@pytest.mark.parametrize("spelling", SPELLED)
def test_mitochondrial_genes_do_not_count_whatever_they_are_called(spelling, stressed, expected, tmp_path):
    var = pd.DataFrame({"feature_name": SPELLED["symbols"]}, index=pd.Index(SPELLED[spelling]))
    ad.AnnData(csr_matrix(stressed.astype(np.float32)), var=var).write_h5ad(tmp_path / "a.h5ad")
    record = build(open_matrix(tmp_path / "a.h5ad"))
    assert record.report["genes_dropped"]["mitochondrial"] == 13
    assert len(record.genes) == 110
    assert record.report["depth"] == expected.report["depth"]
    assert record.report["depth"]["median"] == np.median(stressed[:, :110].sum(axis=1))
    for part in ("indptr", "indices", "z", "estimate"):
        np.testing.assert_array_equal(getattr(record.pairs, part), getattr(expected.pairs, part))
    np.testing.assert_array_equal(record.profile, expected.profile)
    mito = stressed[:, 110:].sum() / stressed.sum()
    assert record.report["shares"] == {"mitochondrial": pytest.approx(mito), "ribosomal": 0.0}


def test_counted_in_depths_they_would_link_genes(stressed, expected):
    kept = build(
        ArraySource(csr_matrix(stressed), SPELLED["symbols"]), GraphConfig(selection="all", drop_mitochondrial=False)
    )
    assert share_of_pairs(expected) < 0.02
    assert share_of_pairs(kept) > 2 * share_of_pairs(expected)


def test_a_list_of_mitochondrial_genes(stressed, expected, tmp_path):
    names = [*NAMES, *(f"LOC{i}" for i in range(13))]
    listed = build(
        ArraySource(csr_matrix(stressed), names), GraphConfig(selection="all", mitochondrial=tuple(names[110:]))
    )
    np.testing.assert_array_equal(listed.pairs.z, expected.pairs.z)
    (tmp_path / "mito.txt").write_bytes("\ufeffLOC0\r\n\r\n{}\r\n".format("\r\n".join(names[111:])).encode())
    read = build(
        ArraySource(csr_matrix(stressed), names), GraphConfig(selection="all", mitochondrial=tmp_path / "mito.txt")
    )
    np.testing.assert_array_equal(read.pairs.z, expected.pairs.z)


@pytest.mark.parametrize("kinds", [("GEX", "ADT"), ("rna", "protein"), ("gene expression", "antibody capture")])
def test_surface_proteins_do_not_count(kinds, tmp_path):
    rng = np.random.default_rng(1)
    genes, proteins = rng.poisson(16.0, (300, 90)), rng.poisson(290.0 * rng.gamma(3.0, 1 / 3, (300, 1)), (300, 10))
    var = pd.DataFrame(
        {"feature_types": [kinds[0]] * 90 + [kinds[1]] * 10}, index=pd.Index([f"G{i}" for i in range(100)])
    )
    ad.AnnData(np.hstack([genes, proteins]).astype(np.float32), var=var).write_h5ad(tmp_path / "a.h5ad")
    record = build(open_matrix(tmp_path / "a.h5ad"))
    assert record.report["depth"]["median"] == np.median(genes.sum(axis=1))
    assert len(record.genes) == 90
    assert "W218" in codes(record)


# Counts that are hardly those of filtered cells


def grouped(rng, n_cells, n_genes=60, mean=6.0):
    """Draw counts with two groups of genes that go together."""
    factor = np.repeat(rng.gamma(3.0, 1 / 3, (n_cells, 2)), n_genes // 2, axis=1)
    return rng.poisson(mean * factor)


def test_droplets_without_cells_warn():
    rng = np.random.default_rng(2)
    droplets = rng.poisson(0.02, (8000, 60))
    record = build(ArraySource(csr_matrix(np.vstack([grouped(rng, 400), droplets])), [f"G{i}" for i in range(60)]))
    warnings = [w for w in record.report["warnings"] if w[:4] in {"W229", "W250"}]
    empty = int((droplets.sum(axis=1) == 0).sum())
    assert warnings == [
        f"W229: {empty} of 8400 cells have no counts and were dropped",
        "W250: the median cell has 1 counts; unfiltered droplets? graph.qc.min_counts leaves cells out",
    ]


def test_binary_counts_of_equal_depth_warn():
    rng = np.random.default_rng(3)
    x = np.zeros((200, 60), dtype=np.int64)
    for row in x:
        row[rng.choice(60, 20, replace=False)] = 1
    record = build(ArraySource(csr_matrix(x), [f"G{i}" for i in range(60)]))
    assert {"W205", "W250"} <= codes(record)


def test_genes_without_counts_warn():
    rng = np.random.default_rng(4)
    x = np.hstack([grouped(rng, 200, 100), np.zeros((200, 400), dtype=np.int64)])
    record = build(ArraySource(csr_matrix(x), [f"G{i}" for i in range(500)]))
    assert "W230: 400 of 500 genes have no counts; an unfiltered raw matrix?" in record.report["warnings"]


def test_filtered_cells_do_not_warn(expected):
    assert not codes(expected) & {"W205", "W229", "W230", "W250"}


# A graph without edges


def test_a_sample_without_any_pair_says_so():
    rng = np.random.default_rng(5)
    record = build(ArraySource(csr_matrix(rng.poisson(2.0, (60, 20))), [f"G{i}" for i in range(20)]))
    (line,) = [w for w in record.report["warnings"] if w.startswith("W270")]
    assert "inf" not in line
    assert "no pair passes a false discovery rate of 0.05, the largest stored abs(z) is" in line
    with pytest.raises(Exception, match="E270") as caught:
        select_edges(record.pairs, record.n_cells, EdgeConfig())
    assert "inf" not in str(caught.value)
