"""Data in memory go the whole way: the same graphs bit for bit as from files, and runs that continue."""

from __future__ import annotations

from dataclasses import fields

import anndata as ad
import numpy as np
import pytest
import yaml
from scipy.sparse import csr_matrix

import musegnn as mg
from musegnn.cli import main
from musegnn.data_store.inspection import inspect
from musegnn.guesses import first_atlas, guess_entry

GRAPH = {"n_genes": 40}


def make(seed, *, species="human", spatial=False):
    """Simulate counts of three programmes; symbols are upper case for human and capitalised for mouse."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 90, (240, 2))
    programme = (xy[:, 0] // 31).astype(int) if spatial else rng.integers(0, 3, 240)
    level = np.ones((240, 80))
    for k in range(3):
        level[programme == k, 15 * k : 15 * k + 15] *= 5.0
    rate = level * rng.dirichlet(np.full(80, 3.0)) * rng.lognormal(7.0, 0.4, (240, 1))
    adata = ad.AnnData(csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.var_names = [f"ABC{j}" if species == "human" else f"Abc{j}" for j in range(80)]
    adata.obs["half"] = np.where(np.arange(240) % 2 == 0, "a", "b")
    if spatial:
        adata.obsm["spatial"] = xy
    return adata


@pytest.fixture(scope="module")
def objects():
    return {"one": make(0), "two": make(1), "place": make(2, spatial=True)}


def assert_same_graphs(store, other):
    assert store.datasets() == other.datasets()
    for name in store.datasets():
        one, two = store.read(name), other.read(name)
        for part in ("genes", "pairs"):
            for field in fields(getattr(one, part)):
                np.testing.assert_array_equal(*(getattr(getattr(each, part), field.name) for each in (one, two)))
        np.testing.assert_array_equal(one.profile, two.profile)
        assert one.report == two.report


def test_graphs_are_those_of_the_files(objects, tmp_path):
    entries, filed = {}, {}
    for name, adata in objects.items():
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        labels = {"modality": "spatial" if name == "place" else "rna", "by": "half" if name == "two" else None}
        entries[name] = labels | {"path": adata}
        filed[name] = labels | {"path": f"{name}.h5ad"}
    settings = {"tissue": "lung", "species": "human", "graph": GRAPH}
    held = mg.build_graphs(mg.atlas(entries, **settings), tmp_path / "held", progress=False)
    store = mg.build_graphs(mg.atlas(filed, base=tmp_path, **settings), tmp_path / "filed", progress=False)
    assert held.datasets() == ["one", "place", "two.a", "two.b"]
    assert_same_graphs(held, store)
    before = {name: held.info(name)["build"] for name in held.datasets()}
    mg.build_graphs(mg.atlas(entries, **settings), held, progress=False)
    assert {name: held.info(name)["build"] for name in held.datasets()} == before


def test_what_is_not_said_is_taken_from_the_data(objects, tmp_path, capsys):
    store = mg.build_graphs(objects["place"], tmp_path / "a", graph=GRAPH, name="x")
    about = store.info("x")
    assert (about["modality"], about["species"], about["tissue"]) == ("spatial", "human", "unknown")
    assert "build x" in capsys.readouterr().err
    mouse = make(3, species="mouse")
    mouse.obs["tissue"] = "brain"
    store = mg.build_graphs([objects["one"], mouse], tmp_path / "b", graph=GRAPH, progress=False)
    found = {name: (store.info(name)["species"], store.info(name)["tissue"]) for name in store.datasets()}
    assert found == {"dataset_1": ("human", "unknown"), "dataset_2": ("mouse", "brain")}
    assert capsys.readouterr().err == ""
    odd = objects["one"].copy()
    odd.var_names = [f"gene-{j}" if j % 2 else f"GENE{j}" for j in range(80)]
    with pytest.raises(mg.ConfigError, match="`species`"):
        mg.build_graphs(odd, tmp_path / "c", progress=False)
    with pytest.raises(mg.ConfigError, match="did you mean `tissue`"):
        mg.build_graphs(odd, tmp_path / "c", progress=False, species="human", tisue="lung")


def test_objects_cannot_go_to_other_machines(objects, tmp_path):
    atlas = mg.atlas({"one": objects["one"]}, modality="rna", tissue="lung", species="human")
    with pytest.raises(mg.ConfigError, match="E303"):
        mg.build_graphs(atlas, tmp_path / "store", scheduler="distributed", progress=False)


@pytest.mark.slow
def test_a_run_of_objects_continues_and_opens_without_them(objects, tmp_path):
    settings = {"modality": "rna", "tissue": "lung", "species": "human", "graph": GRAPH, "model": {"dim": 8}}
    atlas = mg.atlas({name: objects[name] for name in ("one", "two")}, **settings)
    run = mg.run(atlas, tmp_path / "run", progress=False)
    assert [entry["path"] for entry in yaml.safe_load(run.lock.read_text())["datasets"]] == ["<memory>"] * 2
    before = run.embeddings.read_bytes()
    mg.run(atlas, tmp_path / "run", progress=False)
    assert run.embeddings.read_bytes() == before
    adata = ad.read_h5ad(run.embeddings)
    np.testing.assert_array_equal(mg.MuSeGNN.load(tmp_path / "run").embeddings(layout=False).X, adata.X)
    with pytest.raises(mg.InputError, match=r"E230.*AnnData"):
        mg.build_graphs(run.atlas(), tmp_path / "store", progress=False)


def test_a_first_atlas_file_says_what_the_files_say(objects, tmp_path):
    adata = objects["one"].copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    adata.obs["organism"], adata.obs["tissue"], adata.obs["disease"] = "Mus musculus", "liver", "normal"
    (tmp_path / "sub").mkdir()
    adata.write_h5ad(tmp_path / "sub" / "liver 1.h5ad")
    objects["place"].write_h5ad(tmp_path / "visium.h5ad")
    assert guess_entry(objects["place"])["modality"] == "spatial"
    target = tmp_path / "atlas.yaml"
    target.write_text(first_atlas([tmp_path / "sub" / "liver 1.h5ad", tmp_path / "visium.h5ad"], target))
    assert "fill in: tissue" in target.read_text()
    atlas = mg.load_atlas(target)
    assert [(d.name, d.modality, d.tissue, d.species, d.layer, d.condition) for d in atlas.datasets] == [
        ("liver_1", "scrna", "liver", "mouse", "counts", "normal"),
        ("visium", "spatial", "unknown", "human", None, None),
    ]
    assert atlas.datasets[0].path == tmp_path / "sub" / "liver 1.h5ad"
    mg.build_graphs(atlas, tmp_path / "store", progress=False)


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["ACTB", "CD74", "COL1A1"], "human"),
        (["Actb", "Cd74", "Col1a1"], "mouse"),
        (["ENSG00000000001.2", "ENSG00000000002", "ENSG00000000003"], "human"),
        (["ENSRNOG00000000001", "ENSRNOG00000000002", "ENSRNOG00000000003"], "rat"),
        (["ENSG00000000001", "ENSMUSG00000000002", "ENSG00000000003"], "unknown"),
        (["actb", "Cd74", "COL1A1"], "unknown"),
    ],
)
def test_a_first_entry_says_of_names_and_layers_what_inspect_does(names, species, tmp_path):
    adata = ad.AnnData(np.random.default_rng(0).poisson(3.0, (60, 3)).astype(np.float32))
    adata.var_names = names
    adata.layers["counts"] = adata.X.copy()
    for X, layer in ((adata.X, None), (np.log1p(adata.X), "counts")):
        adata.X = X
        adata.write_h5ad(tmp_path / "x.h5ad")
        (about,) = inspect(tmp_path / "x.h5ad")
        entry = guess_entry(tmp_path / "x.h5ad")
        assert (entry["species"], entry.get("layer")) == (species, layer)
        assert about.to_json()["species"].startswith(species) or species == "unknown"
        assert about.layers["X"][1] is (layer is None)
        assert (f"layer: {layer}" in about.problem) == (layer is not None)


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_a_file_without_counts_is_refused(objects, tmp_path, bad):
    adata = objects["one"].copy()
    adata.X = adata.X * bad
    adata.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(mg.InputError, match="E20"):
        first_atlas([tmp_path / "x.h5ad"], tmp_path / "atlas.yaml")


def test_init_writes_it_once(objects, tmp_path, capsys):
    objects["one"].write_h5ad(tmp_path / "one.h5ad")
    call = lambda: main(["init", str(tmp_path / "one.h5ad"), "--out", str(tmp_path / "first.yaml")])  # noqa: E731
    with pytest.raises(SystemExit) as done:
        call()
    assert done.value.code == 0
    assert "musegnn run" in capsys.readouterr().out
    assert [d.name for d in mg.load_atlas(tmp_path / "first.yaml").datasets] == ["one"]
    with pytest.raises(SystemExit) as done:
        call()
    assert done.value.code == 2
    assert "E292" in capsys.readouterr().err
