"""Files whose counts are copied first: split by a column, or stored by columns."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from musegnn.cluster import build as build_module
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
from musegnn.data_store import Store, location

GRAPH = GraphConfig(n_genes=30)
build_graphs = partial(build_module.build_graphs, block_rows=64, device="cpu")
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


def test_a_file_is_hashed_once_however_many_datasets_are_in_it(tmp_path, monkeypatch):
    hashed, digest = [], location._digest
    monkeypatch.setattr(location, "_digest", lambda file: hashed.append(file.name) or digest(file))
    store = Store.create(tmp_path / "store")
    datasets = [about(name, write(tmp_path / f"{name}.h5ad", k), by="half") for k, name in enumerate(["one", "two"])]
    build_graphs(AtlasConfig(datasets=datasets, graph=GRAPH), store)  # the strata choose genes together
    assert store.datasets() == ["one.a", "one.b", "two.a", "two.b"]
    assert sorted(hashed) == ["one.h5ad", "two.h5ad"]


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
    (job, _) = build_module._plan(AtlasConfig(datasets=(dataset,), graph=GRAPH), store, "cpu", 64, None)
    build(store, dataset)
    folder = store._work_folder("_split", job.split)
    folder.mkdir(parents=True)
    (folder / "00000.counts").write_bytes(b"rest")
    assert build(store, dataset) == []
    assert not folder.exists()


def committed(store: Store) -> dict[str, bytes]:
    files = [p for p in store.path.rglob("*") if p.is_file() and p.relative_to(store.path).parts[0] in {"data", "refs"}]
    return {str(p.relative_to(store.path)): p.read_bytes() for p in files}


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip", "none"])
def test_a_damaged_piece_of_a_killed_split_is_made_again(tmp_path, damage):
    dataset = about("one", write(tmp_path / "one.h5ad", 0), by="half")
    whole = Store.create(tmp_path / "whole")
    build(whole, dataset)
    store = Store.create(tmp_path / "store")
    atlas = tmp_path / "atlas.json"
    atlas.write_text(AtlasConfig(datasets=(dataset,), graph=GRAPH).model_dump_json())
    done = subprocess.run([sys.executable, __file__, str(atlas), str(store.path)], check=False)
    assert done.returncode == -9
    folder = next((store.path / "tmp" / "work" / "_split").iterdir())
    pieces = sorted(folder.glob("*.counts"))
    assert len(pieces) == len(list(folder.glob("*.npz"))) == 4
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in pieces}
    raw = bytearray(pieces[1].read_bytes())
    if damage == "delete":
        pieces[1].unlink()
    elif damage == "truncate":
        pieces[1].write_bytes(raw[: len(raw) // 2])
    elif damage == "flip":
        raw[len(raw) // 3] ^= 4
        pieces[1].write_bytes(raw)
    after: dict[str, tuple[bytes, int]] = {}

    def see(task: str, done: int, total: int, note: str = "") -> None:
        if note == "scan":
            after.update({path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.counts")})

    build_graphs(AtlasConfig(datasets=(dataset,), graph=GRAPH), store, progress=see)
    assert committed(store) == committed(whole)
    assert {name: raw for name, (raw, _) in after.items()} == {name: raw for name, (raw, _) in before.items()}
    again = {name for name in after if after[name] != before[name]}
    assert again == (set() if damage == "none" else {pieces[1].name})


def test_another_number_of_rows_is_another_split(tmp_path):
    store = Store.create(tmp_path / "store")
    dataset = about("one", write(tmp_path / "one.h5ad", 0), by="half")
    plans = [
        build_module._plan(AtlasConfig(datasets=(dataset,), graph=GRAPH), store, "cpu", rows, None) for rows in (64, 65)
    ]
    assert plans[0][0].split == plans[0][1].split != plans[1][0].split


def die_after_the_split(atlas: str, store: str) -> None:
    """Build until the first stage that reads the split begins."""
    import os
    import signal

    def kill(task: str, done: int, total: int, note: str = "") -> None:
        if note == "scan":
            os.kill(os.getpid(), signal.SIGKILL)

    build_graphs(AtlasConfig.model_validate(json.loads(Path(atlas).read_text())), Store.open(store), progress=kill)


if __name__ == "__main__":
    die_after_the_split(*sys.argv[1:])
