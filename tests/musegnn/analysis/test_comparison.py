"""A contrast from files to tables, figures and the command, and on data whose answer is known."""

from __future__ import annotations

import json
import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import binomtest, kstest

import musegnn as mg
from musegnn import analysis
from musegnn.analysis.comparison_files import write_contrast
from musegnn.atlas_file import validate_atlas
from musegnn.errors import ConfigError
from musegnn.run_folder import RunFolder

GENES = [f"Gene{i}" for i in range(120)]
REWIRED = GENES[:8]
INTERFERON = re.findall(
    r"\w+",
    "ISG15 IFI6 IFIT1 IFIT2 IFIT3 MX1 MX2 OAS1 OAS2 OAS3 ISG20 LY6E IFI35 IFITM1 IFITM3 CXCL10 STAT1 IRF7 RSAD2",
)


def write(path, rng, *, changed, n_cells=500):
    """Write counts of two modules of 25 genes each; in changed ones eight genes of the first belong to the second."""
    module = np.repeat([0, 1, 2], [25, 25, 70])
    module[: len(REWIRED)] = int(changed)
    factors = np.column_stack([rng.gamma(2.0, 0.5, (n_cells, 2)), np.ones(n_cells)])
    rate = 1e-3 * factors[:, module] * rng.gamma(8.0, 1 / 8.0, (n_cells, 120))
    counts = rng.poisson(rng.integers(800, 2500, n_cells)[:, None] * rate)
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=GENES))
    adata.obs["state"] = pd.Categorical(["x", "y"] * (n_cells // 2))
    adata.write_h5ad(path)


def configure(folder, entries, **graph):
    common = {"modality": "scrna", "tissue": "lung", "species": "human"}
    return validate_atlas({"datasets": [common | entry for entry in entries], "graph": graph}, where="test")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrast")
    rng = np.random.default_rng(0)
    entries = []
    for name, changed in (("control", False), ("treated", True)):
        write(folder / f"{name}.h5ad", rng, changed=changed)
        entries.append({"name": name, "path": str(folder / f"{name}.h5ad"), "condition": name})
    atlas = configure(folder, entries, n_genes=120)
    return mg.build_graphs(atlas, folder / "store"), atlas, folder


def test_rewired_genes_their_partners_and_their_module_are_named(built, tmp_path):
    store, atlas, _ = built
    found = analysis.contrast(store, atlas, "control", "condition=treated", splits=6)
    assert set(found.genes["gene"].head(len(REWIRED))) == set(REWIRED)
    called = set(found.genes["gene"][found.genes["q_value"] < 0.05])
    assert called <= set(REWIRED)
    assert len(called) >= 6
    first = found.genes.iloc[0]
    assert set(first["lost"].split()) <= set(GENES[:25])
    assert set(first["gained"].split()) <= set(GENES[25:50])
    assert found.summary["changed"] == len(called)
    second = found.modules[[GENES[40] in genes.split() for genes in found.modules["genes"]]]
    assert second["state"].tolist() == ["kept"]
    files = write_contrast(found, tmp_path / "out")
    assert [path.stat().st_size > 100 for path in files] == [True] * 6
    table = pd.read_csv(files[0], sep="\t")
    assert table["gene"].tolist() == found.genes["gene"].tolist()
    document = json.loads(files[3].read_text())
    assert (document["changed"], len(document["genes"])) == (len(called), len(table))


def test_genes_bring_the_certainty_of_either_graph(built):
    store, atlas, _ = built
    found = analysis.contrast(store, atlas, "control", "treated", splits=3)
    for side, name in (("a", "control"), ("b", "treated")):
        stored = store.read(name).genes
        known = found.genes.set_index("gene")[f"certainty_{side}"]
        shared = [gene for gene in stored.gene.tolist() if gene in known]
        expected = dict(zip(stored.gene.tolist(), stored.certainty, strict=True))
        assert known[shared].tolist() == [expected[gene] for gene in shared]
        assert known.drop(shared).isna().all()


def test_the_same_seed_gives_the_same_bytes(built, tmp_path):
    store, atlas, _ = built
    for name in ("first", "second"):
        write_contrast(analysis.contrast(store, atlas, "control", "treated", splits=3), tmp_path / name)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("control", "nothing", "names no datasets"),
        ("control", "tissue=lung", "both groups"),
        ("condition=z", "treated", "no datasets"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(built, a, b, message):
    store, atlas, _ = built
    with pytest.raises(ConfigError, match=rf"E302.*{message}.*Fix: "):
        analysis.contrast(store, atlas, a, b)


def test_genes_that_no_graph_has_are_compared_by_name(built):
    _, _, folder = built
    entries = [{"name": n, "path": str(folder / f"{n}.h5ad"), "condition": n} for n in ("control", "treated")]
    atlas = configure(folder, entries, n_genes=60)
    store = mg.build_graphs(atlas, folder / "few")
    known = analysis.contrast(store, atlas, "control", "treated", splits=3).genes["gene"]
    others = sorted(set(GENES) - set(known))
    assert len(others) > 20
    more = analysis.contrast(store, atlas, "control", "treated", genes=[*others[:10], "NOSUCHGENE"], splits=3).genes
    assert set(more["gene"]) == {*known, *others[:10]}
    assert more.set_index("gene").loc[others[:10], "p_value"].between(0.0, 1.0).all()


def test_strata_of_one_file_are_compared(built):
    _, _, folder = built
    atlas = configure(folder, [{"name": "all", "path": str(folder / "control.h5ad"), "by": "state"}], n_genes=110)
    store = mg.build_graphs(atlas, folder / "strata")
    found = analysis.contrast(store, atlas, "all.x", "all.y", splits=5)
    assert (found.summary["cells_a"], found.summary["cells_b"]) == (250, 250)
    assert found.summary["changed"] == 0


def test_labels_of_replicates_are_permuted(tmp_path):
    rng = np.random.default_rng(1)
    entries = []
    for k in range(6):
        write(tmp_path / f"d{k}.h5ad", rng, changed=k >= 3, n_cells=250)
        entries.append({"name": f"d{k}", "path": str(tmp_path / f"d{k}.h5ad"), "condition": "ab"[k >= 3]})
    atlas = configure(tmp_path, entries, n_genes=110)
    store = mg.build_graphs(atlas, tmp_path / "store")
    found = analysis.contrast(store, atlas, "condition=a", "condition=b")
    assert found.summary["chance"] == "permuted labels of datasets"
    rank = found.genes.index[found.genes["gene"].isin(REWIRED)]
    assert np.median(rank) <= len(REWIRED)  # exchanged datasets hold a part of the change
    assert set(found.genes["gene"].head(4)) <= set(REWIRED)


def test_the_command_writes_into_the_run(built, capsys):
    from musegnn.cli import main

    store, atlas, folder = built
    run = RunFolder.create(folder / "run", atlas, store=store.path)
    with pytest.raises(SystemExit) as caught:
        main(["contrast", str(run.path), "control", "treated", "--splits", "3", "--quiet"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "Gene0" in shown
    assert (run.path / "contrast-control-treated" / "volcano.png").is_file()


@pytest.fixture
def real(shared, tmp_path):
    """Build the graphs of two files of shared data."""

    def build(*files, modality="scrna", **graph):
        entries = [
            {"name": f"d{k}", "path": str(shared / "data" / f), "modality": modality} for k, f in enumerate(files)
        ]
        atlas = configure(tmp_path, entries, **graph)
        return mg.build_graphs(atlas, tmp_path / "store"), atlas

    return build


@pytest.mark.slow
def test_interferon_genes_come_first_after_stimulation(real):
    found = analysis.contrast(*real("hs_pbmc_ifnb_ctrl.h5ad", "hs_pbmc_ifnb_stim.h5ad"), "d0", "d1").genes
    present = found.index[found["gene"].isin(INTERFERON)]
    assert len(present) >= 10
    assert np.median(present) + 1 <= 25
    assert (found["q_value"][present] < 0.05).sum() >= 7


def assert_null(p):
    share = binomtest(int((p < 0.05).sum()), len(p))
    assert share.statistic <= 0.05, share.proportion_ci()
    assert kstest(p, "uniform").statistic < 0.05


@pytest.mark.slow
def test_halves_of_one_sample_differ_in_nothing(shared, tmp_path):
    adata = ad.read_h5ad(shared / "data" / "hs_pbmc_10x_pbmc3k.h5ad")
    half = np.random.default_rng(0).permutation(adata.n_obs) % 2
    entries = []
    for k in range(2):
        adata[half == k].copy().write_h5ad(tmp_path / f"{k}.h5ad")
        entries.append({"name": f"d{k}", "path": str(tmp_path / f"{k}.h5ad")})
    atlas = configure(tmp_path, entries)
    found = analysis.contrast(mg.build_graphs(atlas, tmp_path / "store"), atlas, "d0", "d1")
    assert_null(found.genes["p_value"].to_numpy())
    assert found.summary["changed"] == 0


@pytest.mark.slow
def test_adjacent_sections_differ_in_nothing_beyond_their_background(real):
    files = ("hs_brain_dlpfc_151673.h5ad", "hs_brain_dlpfc_151674.h5ad")
    found = analysis.contrast(*real(*files, modality="spatial"), "d0", "d1")
    assert_null(found.genes["p_value"].to_numpy())
    assert found.summary["changed"] == 0
