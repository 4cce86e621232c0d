"""Files whose counts are copied first: split by a column, or stored by columns."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from musegnn.cluster import graphs
from musegnn.cluster.graphs import build_graphs
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
from musegnn.data_store import Store

GRAPH = GraphConfig(n_genes=30, block_rows=64, device="cpu")
PATIENCE = 120.0


def write(path: Path, seed: int, *, by_column: bool = False) -> Path:
    rng = np.random.default_rng(seed)
    level = rng.gamma(3.0, 1 / 3, (240, 60))
    level[:, :20] *= rng.gamma(2.0, 0.5, (240, 1))
    counts = rng.poisson(400 * level * rng.dirichlet(np.ones(60) * 3)).astype(np.float32)
    data = ad.AnnData(csc_matrix(counts) if by_column else csr_matrix(counts))
    data.obs["half"] = np.where(np.arange(240) % 2 == 0, "a", "b")
    data.write_h5ad(path)
    return path


def about(name: str, path: Path, **more: object) -> DatasetConfig:
    entry = {"name": name, "path": path, "modality": "scrna", "tissue": "lung", "species": "human"} | more
    return DatasetConfig.model_validate(entry)


def build(store: Store, *datasets: DatasetConfig) -> list[str]:
    """Build in a thread that is given up after two minutes, so that a lock held for ever fails one test alone."""
    names: list[str] = []
    atlas = AtlasConfig(datasets=datasets, graph=GRAPH)
    thread = threading.Thread(target=lambda: names.extend(build_graphs(atlas, store)), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "the build hangs"
    return names


def left(store: Store) -> list[Path]:
    return [p for p in (store.path / "tmp").rglob("*") if p.suffix != ".lock" and not p.is_dir()]


def test_two_files_that_are_split(tmp_path):
    store = Store.create(tmp_path / "store")
    datasets = [about(name, write(tmp_path / f"{name}.h5ad", k), by="half") for k, name in enumerate(["one", "two"])]
    assert build(store, *datasets) == ["one.a", "one.b", "two.a", "two.b"]
    assert left(store) == []


def test_two_files_by_columns(tmp_path):
    store = Store.create(tmp_path / "store")
    paths = {name: write(tmp_path / f"{name}.h5ad", k, by_column=True) for k, name in enumerate(["one", "two"])}
    assert build(store, *(about(name, path) for name, path in paths.items())) == ["one", "two"]
    assert left(store) == []


@pytest.mark.parametrize("name", ["packed", "split", "work"])
def test_no_name_of_a_dataset_is_taken_by_a_split(tmp_path, name):
    store = Store.create(tmp_path / "store")
    split = about(f"work-{name}", write(tmp_path / "one.h5ad", 0), by="half")
    assert build(store, split, about(name, write(tmp_path / "two.h5ad", 1))) == [
        f"work-{name}.a", f"work-{name}.b", name,
    ]  # fmt: skip


def test_strata_of_two_copies_of_a_file(tmp_path):
    """Which are the same counts, and so share one split."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    first = write(tmp_path / "a" / "one.h5ad", 0)
    second = tmp_path / "b" / "one.h5ad"
    second.write_bytes(first.read_bytes())
    store = Store.create(tmp_path / "store")
    datasets = about("one", first, by="half", stratum="a"), about("two", second, by="half", stratum="b")
    assert build(store, *datasets) == ["one", "two"]


def test_the_rest_of_a_split_that_ended_is_removed(tmp_path):
    store = Store.create(tmp_path / "store")
    dataset = about("one", write(tmp_path / "one.h5ad", 0), by="half")
    (job, _) = graphs._plan(AtlasConfig(datasets=(dataset,), graph=GRAPH), store, None)
    build(store, dataset)
    folder = store._work_folder("_split", job.split)
    folder.mkdir(parents=True)
    (folder / "00000.counts").write_bytes(b"rest")
    assert build(store, dataset) == []
    assert not folder.exists()
