"""``musegnn inspect`` says from headers what would be used, what would be left out, and why."""

from __future__ import annotations

import json

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

from musegnn.cli import app
from musegnn.data_store.inspection import inspect, overlaps


@pytest.fixture
def adata(make_adata):
    data = make_adata(genes=["MT-ND1", *[f"GENE{i}" for i in range(29)]])
    data.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(30)]
    data.var["feature_types"] = pd.Categorical(["Gene Expression"] * 25 + ["Antibody Capture"] * 5)
    data.obs["type"] = pd.Categorical(["a", "b", "c"] * 40)
    data.obs["in_tissue"] = [1, 1, 0] * 40
    data.obsm["spatial"] = np.random.default_rng(0).random((120, 2))
    data.obsm["X_umap"] = np.random.default_rng(0).random((120, 2))
    data.layers["counts"] = data.X.copy()
    return data


def test_what_is_used_and_what_is_not(adata, save):
    (entry,) = inspect(save(adata))
    found = entry.to_json()
    assert json.loads(json.dumps(found)) == found
    assert (found["cells"], found["cells_used"], found["genes"], found["genes_used"]) == (120, 80, 30, 25)
    assert found["feature_kinds"] == {"Gene Expression": 25, "Antibody Capture": 5}
    assert (found["names"], found["species"], found["mitochondrial"]) == ("symbols", "human", 1)
    assert found["labels"] == {"in_tissue": None, "type": 3}
    assert found["coordinates"] == {"spatial": [120, 2], "X_umap": [120, 2]}
    assert found["layers"] == {
        "counts": {"shape": [120, 30], "counts": True},
        "X": {"shape": [120, 30], "counts": True},
    }
    assert {"W218", "W260"} <= {w[:4] for w in found["warnings"]}
    assert found["problem"] == ""
    text = entry.to_text()
    for part in ("80 of 120", "25 of 30", "type (3)", "spatial 120x2", "W218"):
        assert part in text


def test_counts_elsewhere_are_a_problem_with_a_fix(adata, save):
    adata.X = np.log1p(adata.X.toarray())
    (entry,) = inspect(save(adata))
    assert entry.problem == "a sample of X is no raw counts. Fix: set `layer: counts`."
    assert not inspect(entry.path, layer="counts")[0].problem


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_what_is_refused_still_shows_what_it_holds(adata, save):
    adata.var_names = ["A"] * 2 + [f"GENE{i}" for i in range(28)]
    (entry,) = inspect(save(adata))
    assert "E210" in entry.problem
    assert "gene_id_key: gene_ids" in entry.problem
    assert entry.to_json()["gene_columns"] == ["feature_types", "gene_ids"]


def test_every_modality_is_an_entry(adata, tmp_path):
    path = tmp_path / "x.h5mu"
    with h5py.File(path, "w") as file:
        for name in ("rna", "atac"):
            ad.io.write_elem(file, f"mod/{name}", adata)
    assert [entry.mod for entry in inspect(path)] == ["atac", "rna"]
    assert [entry.mod for entry in inspect(path, mod="rna")] == ["rna"]


def test_the_command(adata, save, tmp_path, capsys):
    path = save(adata)
    (tmp_path / "x.rds").write_bytes(b"RDX3\nX\n")
    assert app(["inspect", str(path)]) == 0
    assert "25 of 30" in capsys.readouterr().out
    assert app(["inspect", str(path), str(tmp_path / "x.rds"), str(tmp_path / "none"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [entry["problem"][:11] for entry in found] == ["", "error[E230]", "error[E230]"]
    atlas = tmp_path / "atlas.yaml"
    atlas.write_text(
        "datasets:\n  - {name: a, path: input.h5ad, modality: scrna, tissue: lung, species: human, layer: counts}\n"
    )
    assert app(["inspect", str(atlas)]) == 0
    assert "counts     counts, csr" in capsys.readouterr().out


def test_genes_that_files_share_are_counted_in_every_spelling(counts, make_adata, save):
    one = save(make_adata(), name="one.h5ad")
    other = save(make_adata(genes=[f"GENE{i}" for i in range(30)]), name="other.h5ad")
    (pair,) = overlaps([*inspect(one), *inspect(other)])
    assert (pair.shared, pair.any_case, pair.any_version, pair.any_spelling) == (0, 30, 0, 30)
    assert pair.to_text().endswith("share 0 genes by name, 30 in any case, 0 in any version, 30 in any spelling")
