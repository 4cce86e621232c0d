"""Upkeep of a store: repair from another store, copies, garbage, and where a dataset comes from."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from musegnn.data_store import Store
from musegnn.data_store.commit import canonical_json
from musegnn.errors import StoreError, StoreNotFoundError
from musegnn.text import public_path


def tree(path, *, without=("log", "tmp")):
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.rglob("*")
        if p.is_file() and p.relative_to(path).parts[0] not in without
    }


@pytest.fixture
def store(tmp_path, make_record):
    store = Store.create(tmp_path / "store.zarr")
    store.commit(make_record(seed=1), "b0")
    store.commit(make_record(), "b1", log={"path": "~/lung.h5ad"})
    store.commit(make_record("brain", seed=2), "b1")
    return store


@pytest.fixture
def backup(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "backup")
    return Store.open(tmp_path / "backup")


@pytest.fixture
def folder(store):
    return store.path / "data" / "lung" / "b1"


def test_repair_restores_the_committed_bytes(store, backup, folder):
    before = tree(store.path)
    (folder / "graph" / "z" / "c" / "0").write_bytes(b"damage")
    (folder / "genes" / "mu" / "zarr.json").unlink()
    (folder / "notes").write_text("foreign")
    (store.path / "data" / "lung" / "b0" / "MANIFEST.json").write_text("{}")
    (store.path / "refs" / "lung" / "000000000002.json").write_text("{}")
    assert len(store.repair(backup)) == 5
    assert tree(store.path) == before
    assert store.verify() == []
    assert store.repair(backup) == []


def test_a_link_is_replaced_and_not_followed(store, backup, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("x")
    path = folder / "graph" / "z" / "c" / "0"
    path.unlink()
    path.symlink_to(outside)
    store.repair(backup, "lung")
    assert outside.read_text() == "x"
    assert not path.is_symlink()
    assert store.verify() == []


def test_a_new_build_of_the_same_record_repairs(store, folder, tmp_path, make_record):
    (folder / "graph" / "z" / "c" / "0").write_bytes(b"damage")
    rebuilt = Store.create(tmp_path / "rebuilt")
    rebuilt.commit(make_record(), "b1")
    assert store.repair(rebuilt, "lung") == ["data/lung/b1/graph/z/c/0"]
    assert store.verify() == []


def test_repair_from_other_bytes_is_refused(store, folder, tmp_path, make_record):
    other = Store.create(tmp_path / "other")
    other.commit(make_record(seed=5), "b1")
    before = tree(store.path)
    assert store.repair(other) == []
    (folder / "graph" / "z" / "c" / "0").write_bytes(b"damage")
    with pytest.raises(StoreError, match="E133"):
        store.repair(other)
    (folder / "MANIFEST.json").unlink()
    with pytest.raises(StoreError, match="E133"):
        store.repair(other)
    (store.path / "refs" / "brain" / "000000000001.json").write_text("")
    with pytest.raises(StoreError, match="E133"):
        store.repair(other, "brain")
    assert tree(store.path).keys() <= before.keys()


def test_a_copy_has_the_same_bytes(store, tmp_path):
    target = Store.create(tmp_path / "copy")
    assert store.copy(target) == ["brain", "lung"]
    assert store.copy(target) == []
    assert target.verify() == []
    for name in ("brain", "lung"):
        part = Path("data") / name / "b1"
        assert tree(target.path / part) == tree(store.path / part)
        assert target.provenance(name) == store.provenance(name)
    assert not (target.path / "data" / "lung" / "b0").exists()


def test_damage_is_not_copied(store, folder, tmp_path):
    (folder / "graph" / "z" / "c" / "0").write_bytes(b"damage")
    target = Store.create(tmp_path / "copy")
    with pytest.raises(StoreError, match="E131"):
        store.copy(target, ["lung"])
    assert target.datasets() == []
    with pytest.raises(StoreNotFoundError, match="E294"):
        store.copy(target, ["liver"])


def test_provenance_says_what_and_from_where(store):
    about = store.provenance("lung")
    assert about["input"] == {"sha256": "00"}
    assert about["log"]["path"] == "~/lung.h5ad"
    assert {"time", "software", "python"} <= about["log"].keys()
    (store.path / "log" / "lung" / "000000000002.json").unlink()
    assert store.provenance("lung")["log"] == {}
    assert store.verify() == []


@pytest.mark.parametrize(
    "edit",
    [lambda raw: raw[:-2], lambda raw: raw.replace(b"lung", b"long"), lambda raw: raw.replace(b"entry", b"antry")],
)
def test_a_damaged_log_is_found_and_hurts_no_reader(store, edit, make_record):
    path = store.path / "log" / "lung" / "000000000002.json"
    path.write_bytes(edit(path.read_bytes()))
    assert "log lung/000000000002.json is damaged" in store.verify("lung")[0]
    with pytest.raises(StoreError, match="E130"):
        store.provenance("lung")
    assert store.read("lung").genes.gene.tolist() == make_record().genes.gene.tolist()


def test_a_log_without_a_sum_is_read(store):
    """Stores made before had such logs."""
    path = store.path / "log" / "lung" / "000000000002.json"
    path.write_bytes(canonical_json({"time": "2026-01-01T00:00:00+00:00", "python": "3.12"}))
    assert store.provenance("lung")["log"]["python"] == "3.12"
    assert store.verify() == []


def test_a_changed_format_file_is_found(store):
    path = store.path / "FORMAT.json"
    path.write_bytes(path.read_bytes().replace(b'"created_by":"musegnn"', b'"created_by":"musegno"'))
    assert "FORMAT.json" in store.verify()[0]


def test_small_files_are_checked_as_they_are_read(store, folder):
    for key, call in (("report.json", store.report), ("zarr.json", store.info), ("provenance.json", store.provenance)):
        whole = (folder / key).read_bytes()
        (folder / key).write_bytes(whole[:-3] + b" " + whole[-2:])
        with pytest.raises(StoreError, match="E131"):
            call("lung")
        (folder / key).write_bytes(whole)


def test_garbage_is_what_no_reference_shows(store):
    stray = store.path / "data" / "lung" / "stray"
    stray.mkdir()
    (stray / "zarr.json").write_text("{}")
    (store.path / "tmp" / "x.1.partial").write_text("")
    before = tree(store.path, without=())
    assert store.gc(grace_hours=1) == []
    expected = ["data/lung/stray", "tmp/x.1.partial"]
    assert store.gc(grace_hours=-1) == expected
    assert tree(store.path, without=()) == before
    assert store.gc(grace_hours=-1, dry_run=False) == expected
    assert not stray.exists()
    assert store.verify() == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (Path.home() / "a.h5ad", "~/a.h5ad"),
        ("/" + "home/anna/a.h5ad", "~/a.h5ad"),
        ("/Users/anna/a.h5ad", "~/a.h5ad"),
        ("/data/a.h5ad", "/data/a.h5ad"),
        ("https://anna:pass@host/a.h5ad?X-Amz-Signature=1", "https://host/a.h5ad"),
    ],
)
def test_paths_name_no_user(path, expected):
    assert public_path(path) == expected


def run(*arguments):
    from musegnn.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["store", *map(str, arguments)])
    return caught.value.code


def test_commands(store, backup, folder, tmp_path, capsys):
    assert run("ls", store.path) == 0
    assert capsys.readouterr().out.split() == ["brain", "lung"]
    assert run("info", store.path, "lung", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["n_genes"], about["input"], about["log"]["path"]) == (60, {"sha256": "00"}, "~/lung.h5ad")
    assert run("copy", store.path, tmp_path / "copy", "lung") == 0
    assert Store.open(tmp_path / "copy").datasets() == ["lung"]
    (folder / "graph" / "z" / "c" / "0").write_bytes(b"damage")
    assert run("verify", store.path) == 1
    assert "graph/z/c/0" in capsys.readouterr().out
    assert run("repair", store.path) == 2
    assert "E303" in capsys.readouterr().err
    assert run("repair", store.path, "--copy", backup.path) == 0
    assert run("verify", store.path) == 0
    (store.path / "tmp" / "x.1.partial").write_text("")
    assert run("gc", store.path, "--grace-hours", "-1") == 0
    assert (store.path / "tmp" / "x.1.partial").exists()
    assert run("gc", store.path, "--grace-hours", "-1", "--delete") == 0
    assert not (store.path / "tmp" / "x.1.partial").exists()


def test_repair_from_the_atlas_builds_again(tmp_path, capsys):
    import anndata as ad
    import numpy as np
    import scipy.sparse as sp

    import musegnn as mg

    rng = np.random.default_rng(0)
    level = np.ones((200, 40))
    level[:, :20] *= rng.gamma(2.0, 0.5, (200, 1))
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(2 * level).astype(np.float32)))
    adata.var_names = [f"Gene{i}" for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "lung.h5ad")
    dataset = {"name": "lung", "path": "lung.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}
    atlas = tmp_path / "atlas.yaml"
    atlas.write_text(json.dumps({"datasets": [dataset, dataset | {"name": "other", "path": "gone.h5ad"}]}))
    one = tmp_path / "one.yaml"
    one.write_text(json.dumps({"datasets": [dataset]}))
    store = mg.build_graphs(mg.load_atlas(one), tmp_path / "store")
    before = tree(store.path)
    path = store.path / "data" / "lung" / store.build_of("lung") / "profile" / "X" / "c" / "0" / "0"
    path.write_bytes(path.read_bytes()[::-1])
    assert run("repair", store.path, "--atlas", atlas) == 0
    assert tree(store.path) == before
    assert store.verify() == []
    assert list((store.path / "tmp" / "work").glob("*/*")) == []
    assert run("repair", store.path, "--atlas", atlas, "--quiet") == 0
    assert "nothing" in capsys.readouterr().out
