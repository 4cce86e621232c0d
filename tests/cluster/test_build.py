from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from musegnn.cluster import build as cluster_build
from musegnn.config import AtlasConfig, DatasetConfig, EdgeConfig, GraphConfig
from musegnn.data_store import Store
from musegnn.errors import ConfigError, GraphError, InputError

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = GraphConfig(n_genes=50)
build_graphs = partial(cluster_build.build_graphs, block_rows=90)


def write(path: Path, seed: int, *, noise: bool = False) -> None:
    rng = np.random.default_rng(seed)
    n, genes = 300, 90
    level = rng.gamma(3.0, 1 / 3, (n, genes))
    if not noise:
        level[:, :30] *= rng.gamma(2.0, 0.5, (n, 1))
    rate = rng.lognormal(6.5, 0.4, (n, 1)) * (level if not noise else 1.0) * rng.dirichlet(np.ones(genes) * 3)
    data = ad.AnnData(csr_matrix(rng.poisson(rate).astype(np.float32)))
    data.var_names = [f"G{j}" for j in range(genes)]
    data.write_h5ad(path)


@pytest.fixture
def atlas(tmp_path: Path) -> AtlasConfig:
    datasets = []
    for seed, name in enumerate(["one", "two", "three"]):
        write(tmp_path / f"{name}.h5ad", seed)
        path = tmp_path / f"{name}.h5ad"
        datasets.append(DatasetConfig(name=name, path=path, modality="scrna", tissue="lung", species="human"))
    return AtlasConfig(datasets=tuple(datasets), graph=GRAPH)


def tree(store: Store) -> dict[str, str]:
    """Digest every file but the logs."""
    files = sorted(p for p in store.path.rglob("*") if p.is_file() and "log" not in p.relative_to(store.path).parts)
    return {str(p.relative_to(store.path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_schedulers_give_the_same_bytes(atlas, tmp_path):
    stores = {}
    for scheduler in ("threads", "synchronous", "threads"):
        store = Store.create(tmp_path / f"{scheduler}{len(stores)}")
        assert build_graphs(atlas, store, scheduler=scheduler) == ["one", "two", "three"]
        stores[f"{scheduler}{len(stores)}"] = tree(store)
    first, *others = stores.values()
    assert any(name.endswith("MANIFEST.json") for name in first)
    assert all(other == first for other in others)


def test_what_is_in_the_store_is_left_alone(atlas, tmp_path):
    store = Store.create(tmp_path / "store")
    one = atlas.model_copy(update={"datasets": atlas.datasets[:1]})
    assert build_graphs(one, store) == ["one"]
    assert build_graphs(atlas, store) == ["two", "three"]
    assert build_graphs(atlas, store) == []
    other = atlas.model_copy(update={"graph": GRAPH.model_copy(update={"n_genes": 40})})
    assert build_graphs(other, store) == ["one", "two", "three"]
    assert len(store.read("two").genes) == 40


def test_another_edge_rule_needs_no_build(atlas, tmp_path):
    store = Store.create(tmp_path / "store")
    build_graphs(atlas, store)
    assert build_graphs(atlas.model_copy(update={"edges": EdgeConfig(rule="pvalue")}), store) == []


def test_progress_is_told(atlas, tmp_path):
    told: list[tuple[str, int, int, str]] = []

    def progress(task: str, done: int, total: int, note: str = "") -> None:
        told.append((task, done, total, note))

    store = Store.create(tmp_path / "store")
    build_graphs(atlas, store, progress=progress)
    mine = [entry[1:] for entry in told if entry[0] == "build two"]
    assert list(dict.fromkeys(note for _, _, note in mine)) == [
        "scan", "select", "variance", "extract", "pairs", "profile", "",
    ]  # fmt: skip
    assert [done for done, _, _ in mine] == sorted(done for done, _, _ in mine)
    assert mine[-1] == (6 * 300, 6 * 300, "")
    assert {total for _, total, _ in mine} == {6 * 300}
    told.clear()
    build_graphs(atlas, store, progress=progress)
    assert told == [(f"build {name}", 1, 1, "in the store") for name in ("one", "two", "three")]


def test_a_graph_without_edges_is_refused_and_not_written(atlas, tmp_path):
    write(tmp_path / "two.h5ad", 5, noise=True)
    store = Store.create(tmp_path / "store")
    with pytest.raises(GraphError) as caught:
        build_graphs(atlas, store, scheduler="synchronous")
    assert caught.value.code == "E270"
    assert caught.value.where == "two"
    assert "two" not in store.datasets()


def test_a_bad_file_is_refused_before_anything_is_built(atlas, tmp_path):
    (tmp_path / "three.h5ad").write_bytes(b"<html>not found</html>")
    store = Store.create(tmp_path / "store")
    before = tree(store)
    with pytest.raises(InputError, match=r"three\.h5ad"):
        build_graphs(atlas, store)
    assert tree(store) == before


def test_the_same_counts_twice_are_refused(atlas, tmp_path):
    (tmp_path / "two.h5ad").write_bytes((tmp_path / "one.h5ad").read_bytes())
    with pytest.raises(InputError, match=r"E252.*two.*`one`"):
        build_graphs(atlas, Store.create(tmp_path / "store"))


def test_unknown_scheduler(atlas, tmp_path):
    with pytest.raises(ConfigError, match="slurm"):
        build_graphs(atlas, Store.create(tmp_path / "store"), scheduler="slurm")


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")  # distributed warns about its own sockets when a cluster closes
def test_a_dask_cluster_gives_the_same_bytes(atlas, tmp_path):
    from distributed import LocalCluster

    local, remote = Store.create(tmp_path / "local"), Store.create(tmp_path / "remote")
    build_graphs(atlas, local)
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        assert build_graphs(atlas, remote, scheduler=cluster.scheduler_address) == ["one", "two", "three"]
    assert tree(remote) == tree(local)


def chosen(store: Store, name: str) -> set[str]:
    return set(store.read(name).genes.gene.tolist())


def with_conditions(atlas: AtlasConfig, *conditions: str | None, **graph: object) -> AtlasConfig:
    datasets = [d.model_copy(update={"condition": c}) for d, c in zip(atlas.datasets, conditions, strict=True)]
    return atlas.model_copy(update={"datasets": tuple(datasets), "graph": GRAPH.model_copy(update=graph)})


def test_datasets_of_several_conditions_choose_their_genes_together(atlas, tmp_path):
    alone, together, told = (Store.create(tmp_path / name) for name in ("alone", "together", "told"))
    build_graphs(with_conditions(atlas, "a", "a", None), alone)
    build_graphs(with_conditions(atlas, "a", "b", None), together)
    build_graphs(with_conditions(atlas, None, None, None, select_by="tissue"), told)
    names = alone.datasets()
    assert len(set.intersection(*(chosen(alone, name) for name in names))) < 45
    assert chosen(together, "one") == chosen(together, "two") == chosen(together, "three")  # all genes are in all
    assert all(chosen(told, name) == chosen(together, name) for name in names)
    assert all(len(store.read(name).genes) == 50 for store in (alone, together) for name in names)


def test_datasets_choose_together_within_tissue_and_species_alone(atlas, tmp_path):
    one, two, three = atlas.datasets
    other = atlas.model_copy(
        update={"datasets": (one, two.model_copy(update={"tissue": "liver"}), three), "graph": GRAPH}
    )
    apart, joint = Store.create(tmp_path / "apart"), Store.create(tmp_path / "joint")
    build_graphs(other, apart)
    build_graphs(other.model_copy(update={"graph": GRAPH.model_copy(update={"select_by": "tissue"})}), joint)
    assert joint.build_of("two") == apart.build_of("two")
    assert joint.build_of("one") != apart.build_of("one")
    assert chosen(joint, "one") == chosen(joint, "three")


def test_a_joint_choice_that_was_interrupted_goes_on_with_the_same_bytes(atlas, tmp_path, monkeypatch):
    joint = with_conditions(atlas, None, None, None, select_by="tissue")
    whole, parts = Store.create(tmp_path / "whole"), Store.create(tmp_path / "parts")
    build_graphs(joint, whole)
    commit = Store.commit

    def fail_at_three(self, record, *arguments, **named):
        if record.name == "three":
            raise KeyboardInterrupt
        commit(self, record, *arguments, **named)

    monkeypatch.setattr(Store, "commit", fail_at_three)
    with pytest.raises(KeyboardInterrupt):
        build_graphs(joint, parts, scheduler="synchronous")
    monkeypatch.undo()
    assert parts.datasets() != whole.datasets()
    build_graphs(joint, parts)
    assert tree(parts) == tree(whole)
    assert build_graphs(joint, parts) == []
