from __future__ import annotations

import json

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from musegnn.coexpression.build import build_dataset
from musegnn.coexpression.cscore import Stripe, cscore
from musegnn.coexpression.edges import select_edges, strict_cutoff
from musegnn.coexpression.pairs import collect_pairs, keep_pairs
from musegnn.coexpression.sparkx import sparkx
from musegnn.coexpression.tasks import save
from musegnn.config import DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import ArraySource, open_matrix
from musegnn.errors import ConfigError, GraphError, InputError

SMALL = GraphConfig(n_genes=60)
ROWS = 128


def counts(seed: int = 0, n: int = 400, genes: int = 150) -> np.ndarray:
    """Three programmes of 20 genes each, the other genes on their own."""
    rng = np.random.default_rng(seed)
    depth = rng.lognormal(7.5, 0.4, n)
    level = rng.gamma(3.0, 1 / 3, (n, genes))
    for first in range(0, 60, 20):
        level[:, first : first + 20] *= rng.gamma(2.0, 0.5, (n, 1))
    share = rng.dirichlet(np.ones(genes) * 2)
    return rng.poisson(depth[:, None] * level * share)


def dataset(modality: str = "scrna") -> DatasetConfig:
    return DatasetConfig(name="small", path="small.h5ad", modality=modality, tissue="lung", species="human")


def source(x: np.ndarray, coords: np.ndarray | None = None) -> ArraySource:
    return ArraySource(csr_matrix(x), [f"G{j}" for j in range(x.shape[1])], coords=coords)


def dense(pairs, values) -> np.ndarray:
    out = np.zeros((pairs.n_genes, pairs.n_genes))
    out[np.repeat(np.arange(pairs.n_genes), np.diff(pairs.indptr)), pairs.indices] = values
    return out


def test_the_record_holds_what_cscore_gives():
    x = counts()
    x[5] = 0
    record = build_dataset(source(x), dataset(), SMALL, block_rows=ROWS)
    chosen = np.array([int(name[1:]) for name in record.genes.gene])
    assert (np.diff(chosen) > 0).all()
    kept = np.delete(x, 5, axis=0)
    expected = cscore(kept[:, chosen], kept.sum(1))
    np.fill_diagonal(expected.z, 0.0)
    stored = np.abs(expected.z) >= 1.96
    np.testing.assert_allclose(dense(record.pairs, record.pairs.z), expected.z * stored, rtol=1e-6)
    np.testing.assert_allclose(
        dense(record.pairs, record.pairs.estimate), np.where(stored, expected.estimate, 0.0), rtol=1e-5, atol=1e-7
    )
    upper = np.abs(expected.z[np.triu_indices(60, 1)])
    assert record.pairs.n_tests == len(upper) == 60 * 59 // 2
    np.testing.assert_array_equal(
        record.pairs.histogram, np.bincount(np.minimum(upper / 0.05, 800).astype(int), minlength=801)
    )
    np.testing.assert_allclose(record.genes.mu, expected.fit.mu, rtol=1e-12)
    np.testing.assert_allclose(record.genes.mean, kept[:, chosen].mean(0), rtol=1e-12)
    np.testing.assert_allclose(record.genes.variance, kept[:, chosen].var(0, ddof=1), rtol=1e-10)
    assert record.n_cells == 399
    assert record.report["cells_dropped"] == {"no_counts": 1}
    json.dumps([record.report, record.provenance], allow_nan=False)


def test_programmes_are_found():
    pairs = build_dataset(source(counts()), dataset(), GraphConfig()).pairs
    edges = select_edges(pairs, 400, EdgeConfig(sign="positive"))
    group = np.where(np.arange(150) < 60, np.arange(150) // 20, -1)
    together = (group[edges.rows] == group[edges.indices]) & (edges.rows < 60)
    assert together.sum() > 0.9 * 60 * 19
    assert together.mean() > 0.75  # by chance: 0.05


@pytest.mark.parametrize("rows", [1, 37, 400])
def test_block_size_does_not_matter(rows):
    x = counts(1)
    one, two = (build_dataset(source(x), dataset(), SMALL, block_rows=r) for r in (400, rows))
    np.testing.assert_array_equal(one.genes.gene, two.genes.gene)
    np.testing.assert_array_equal(one.pairs.indices, two.pairs.indices)
    np.testing.assert_allclose(one.pairs.z, two.pairs.z, rtol=1e-5)
    product = one.profile.astype(float) @ one.profile.T
    np.testing.assert_allclose(two.profile.astype(float) @ two.profile.T, product, atol=1e-5 * product.max())


def test_equal_builds_are_equal_bits():
    one, two = (build_dataset(source(counts(2)), dataset(), SMALL, block_rows=ROWS) for _ in range(2))
    for a, b in ((one.pairs.z, two.pairs.z), (one.profile, two.profile), (one.genes.score, two.genes.score)):
        assert a.tobytes() == b.tobytes()
    assert one.report == two.report
    assert one.provenance == two.provenance


def test_under_dispersed_counts_are_reported():
    x = counts(3)
    x[:, 60:] = np.minimum(x[:, 60:], 1)
    record = build_dataset(source(x), dataset("scatac"), GraphConfig(selection="all"))
    negative = record.genes.sigma < 0
    assert record.report["negative_variance"] == negative.sum() > 20
    assert any(w.startswith("W254") for w in record.report["warnings"])
    touched = dense(record.pairs, np.ones(len(record.pairs.z)))[negative].sum()
    estimates = dense(record.pairs, record.pairs.estimate)
    assert (estimates[negative] == 0).all()
    assert touched > 0
    assert record.pairs.n_tests == len(negative) * (len(negative) - 1) // 2


def test_spatial_data_select_by_place():
    x = counts(4)
    side = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    x[:200, 100:120] *= 4
    record = build_dataset(source(x, side), dataset("spatial"), SMALL, block_rows=ROWS)
    assert {f"G{j}" for j in range(100, 120)} <= set(record.genes.gene)
    expected = sparkx(csr_matrix(x), side).p_adjusted
    chosen = [int(name[1:]) for name in record.genes.gene]
    np.testing.assert_allclose(record.genes.score, expected[chosen], rtol=1e-9)
    hvg = build_dataset(source(x, side), dataset("spatial"), SMALL.model_copy(update={"selection": "hvg"}))
    assert not np.array_equal(hvg.genes.gene, record.genes.gene)
    with pytest.raises(InputError, match="E260"):
        build_dataset(source(x), dataset("spatial"), SMALL, block_rows=ROWS)


def test_as_many_directions_as_genes_have_the_same_inner_products():
    x = counts(5)
    gram = build_dataset(source(x), dataset(), SMALL, block_rows=ROWS).profile.astype(float)
    config = SMALL.model_copy(update={"profile_rank": 60})
    other = build_dataset(source(x), dataset(), config, block_rows=ROWS).profile.astype(float)
    assert other.shape == (60, 60)
    np.testing.assert_allclose(gram @ gram.T, other @ other.T, atol=1e-5 * (gram @ gram.T).max())


def test_noise_has_a_graph_without_edges():
    rng = np.random.default_rng(6)
    record = build_dataset(source(rng.poisson(1.0, (300, 40))), dataset(), GraphConfig(selection="all"))
    assert any(w.startswith("W270") for w in record.report["warnings"])
    with pytest.raises(GraphError, match="E270"):
        select_edges(record.pairs, record.n_cells, EdgeConfig())


def test_fewer_genes_than_asked_for_is_reported():
    record = build_dataset(source(counts(7)), dataset(), GraphConfig())
    assert len(record.genes) == 150
    assert any(w.startswith("W256: 150 genes") for w in record.report["warnings"])


def test_steps_are_told():
    steps: list[tuple[str, int, int]] = []
    build_dataset(source(counts(8)), dataset(), SMALL, block_rows=ROWS, progress=lambda *step: steps.append(step))
    stages = ["scan", "select", "variance", "extract", "pairs", "profile"]
    assert list(dict.fromkeys(stage for stage, _, _ in steps)) == stages
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert steps[-1] == ("profile", 6 * 400, 6 * 400)
    for selection, passes in (("hvg", 4), ("all", 3)):
        config = SMALL.model_copy(update={"selection": selection})
        assert build_dataset(source(counts(8)), dataset(), config).report["passes"] == passes


def test_pairs_of_several_stripes(tmp_path):
    rng = np.random.default_rng(9)
    z = rng.normal(0, 3, (10, 10))
    z = np.triu(z) + np.triu(z, 1).T
    z[2, :] = z[:, 2] = np.nan
    stripes = [Stripe(start=s, z=z[s : s + 4, s:], estimate=z[s : s + 4, s:] / 20) for s in (0, 4, 8)]
    order = rng.permutation(10)
    paths = [tmp_path / "0.npz", tmp_path / "1.npz"]
    for path, part in zip(paths, (stripes[:2], stripes[2:]), strict=True):
        save(path, keep_pairs(part, 1.96, np.zeros((6, 10))))
    pairs = collect_pairs(paths, order, 1.96)
    z = z[np.ix_(np.argsort(order), np.argsort(order))]
    keep = (np.abs(np.nan_to_num(z)) >= 1.96) & ~np.eye(10, dtype=bool)
    np.testing.assert_allclose(dense(pairs, pairs.z), np.where(keep, z, 0.0), rtol=1e-6)
    np.testing.assert_allclose(dense(pairs, pairs.estimate), np.where(keep, z / 20, 0.0), rtol=1e-6)
    assert pairs.n_tests == 9 * 8 // 2
    assert pairs.histogram.sum() == pairs.n_tests


@pytest.mark.parametrize("name", ["mm_cortex_snareseq_atac_ga", "mm_forebrain_atac_ga"])
def test_graphs_of_accessibility_are_useful(shared, name):
    """Sparse, under-dispersed scATAC data give two edges per gene or more by the default rule, and say so."""
    path = shared / "data" / f"{name}.h5ad"
    record = build_dataset(open_matrix(path), dataset("scatac"), GraphConfig())
    edges = select_edges(record.pairs, record.n_cells, EdgeConfig())
    assert edges.mean_degree >= 2.0
    assert edges.negative_share < 0.3
    assert any(w.startswith("W254") for w in record.report["warnings"])
    filled = edges.cutoff < strict_cutoff(record.pairs, record.n_cells, 0.05)
    assert filled == any(w.startswith("W258") for w in record.report["warnings"])
    assert filled == (name == "mm_cortex_snareseq_atac_ga")


def test_summed_duplicates_are_reported_once(tmp_path):
    """Whoever reads the shards, and when: the count comes from the files of the scan."""
    x = csr_matrix(counts(10))
    path = tmp_path / "twice.h5ad"
    ad.AnnData(x.astype(np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        group = file["X"]
        last = group["indptr"][-1]
        for name in ("data", "indices"):
            values = np.append(group[name][...], group[name][last - 1])
            del group[name]
            group[name] = values
        group["indptr"][-1] = last + 1
    for rows in (100, 1000):
        record = build_dataset(open_matrix(path), dataset(), SMALL, block_rows=rows)
        merged = [w for w in record.report["warnings"] if w.startswith("W236")]
        assert merged == ["W236: 1 duplicate entries of the sparse matrix were summed"]


def test_dense_graphs_are_pointed_out():
    rng = np.random.default_rng(11)
    x = rng.poisson(rng.gamma(2.0, 1.5, (600, 1)) * np.ones(40) * np.where(np.arange(40) < 20, 1.0, 0.3))
    other = rng.poisson(rng.gamma(2.0, 1.5, (600, 1)) * np.ones(40))
    record = build_dataset(source(np.hstack([x, other])), dataset(), GraphConfig(selection="all"))
    assert record.report["default_rule"]["density"] > 0.3
    assert any(w.startswith("W274") for w in record.report["warnings"])


def stop_after_the_scan(stage: str, done: int, total: int) -> None:
    del done, total
    if stage != "scan":
        raise KeyboardInterrupt


def test_an_interrupted_build_goes_on_from_its_folder(tmp_path):
    x = source(counts())
    with pytest.raises(KeyboardInterrupt):
        build_dataset(x, dataset(), SMALL, block_rows=ROWS, work=tmp_path, progress=stop_after_the_scan)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "scan").iterdir()}
    resumed = build_dataset(x, dataset(), SMALL, block_rows=ROWS, work=tmp_path)
    whole = build_dataset(x, dataset(), SMALL, block_rows=ROWS)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "scan").iterdir()} == times
    np.testing.assert_array_equal(resumed.pairs.z, whole.pairs.z)


@pytest.mark.parametrize("change", ["counts", "settings", "mark", "damage"])
def test_a_folder_of_another_build_is_refused(tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        build_dataset(source(counts()), dataset(), SMALL, block_rows=ROWS, work=tmp_path, progress=stop_after_the_scan)
    if change == "mark":
        (tmp_path / "build.npz").unlink()
    elif change == "damage":
        (tmp_path / "build.npz").write_bytes(b"PK")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    x = source(counts(seed=1 if change == "counts" else 0))
    config = SMALL.model_copy(update={"min_cells": 7}) if change == "settings" else SMALL
    with pytest.raises(ConfigError, match=r"holds files of another build.*Fix: give each build an empty") as caught:
        build_dataset(x, dataset(), config, block_rows=ROWS, work=tmp_path)
    assert caught.value.code == "E311"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.npz")} == before


def listed(*names: str, **settings) -> GraphConfig:
    return GraphConfig(selection="list", genes=names, **settings)


def test_unknown_names_of_a_list_are_pointed_out():
    with pytest.raises(GraphError, match=r"E273.*no gene named as 4 of the list") as caught:
        build_dataset(source(counts()), dataset(), listed("g1", "g2", "ENSG1", "TP53"))
    assert "(ENSG1, TP53, g1, ...)" in caught.value.message
    assert caught.value.fix == "check the names in graph.genes: case, and symbols or identifiers as in the dataset (G0)"


def test_names_of_a_list_that_are_known_but_rare_ask_for_fewer_cells():
    x = counts()
    x[:, :3] = 0
    x[:2, :3] = 1
    with pytest.raises(GraphError, match=r"E273.*1 genes can be selected, expected at least 2. Fix: lower graph.min"):
        build_dataset(source(x), dataset(), listed("G0", "G1", "G2", "G3"))


def test_names_of_a_list_that_match_no_gene_are_counted():
    x = counts()
    both = ArraySource(csr_matrix(x), [f"G{j}" for j in range(150)], gene_id=[f"ENSG{j:05d}" for j in range(150)])
    config = listed("G0", "ENSG00000", "G1", "ENSG00001", "ENSG00002", "Z1", "Z2", "Z3", "Z4")
    record = build_dataset(both, dataset(), config)
    assert record.genes.gene.tolist() == ["G0", "G1", "G2"]
    (warning,) = [text for text in record.report["warnings"] if text.startswith("W259")]
    assert warning.startswith("W259: 4 names of the list are of none of the 150 genes")
    assert warning.endswith("(Z1, Z2, Z3, ...)")


def test_a_list_of_genes_may_be_a_path(tmp_path):
    (tmp_path / "genes.txt").write_text("G0\nG1\n\nG2\n")
    by_path = GraphConfig(selection="list", genes=tmp_path / "genes.txt")
    record = build_dataset(source(counts()), dataset(), by_path)
    expected = build_dataset(source(counts()), dataset(), listed("G0", "G1", "G2"))
    np.testing.assert_array_equal(record.pairs.z, expected.pairs.z)
    assert record.provenance == expected.provenance
    with pytest.raises(ConfigError, match=r"E300.*none\.txt.*Fix: name a text file"):
        build_dataset(source(counts()), dataset(), by_path.model_copy(update={"genes": tmp_path / "none.txt"}))


@pytest.mark.parametrize(
    ("modality", "selection", "fix"),
    [
        ("spatial", "auto", "give coordinates or graph.selection: hvg"),
        ("scrna", "svg", "set modality: spatial or graph.selection: hvg"),
    ],
)
def test_missing_coordinates_ask_for_them(modality, selection, fix):
    with pytest.raises(InputError, match="needs coordinates") as caught:
        build_dataset(source(counts()), dataset(modality), GraphConfig(selection=selection))
    assert (caught.value.code, caught.value.fix) == ("E260", fix)


def test_coordinates_that_are_not_numbers_are_named():
    side = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    side[[7, 11], 1] = np.nan
    with pytest.raises(InputError, match=r"2 of 400 cells have no finite coordinates \(first: 7, 11\)") as caught:
        build_dataset(source(counts(), side), dataset("spatial"), SMALL, block_rows=ROWS)
    assert (caught.value.code, caught.value.fix) == ("E260", "remove these cells or correct their coordinates")
    with pytest.raises(InputError, match="on a line or in one place") as caught:
        build_dataset(source(counts(), np.zeros((400, 2))), dataset("spatial"), SMALL)
    assert (caught.value.code, caught.value.fix) == ("E260", "correct the coordinates, or set graph.selection: hvg")
