"""What was committed is read back, and equal builds are equal bytes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.data_store import Store, build_id
from musegnn.data_store.commit import canonical_json
from musegnn.data_store.layout import chunks_of, pack_names, shard_keys, unpack_names
from musegnn.errors import InputError, StoreError, StoreNotFoundError


def tree(path, *, without=("log", "tmp")):
    """Every file with its digest."""
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.rglob("*")
        if p.is_file() and p.relative_to(path).parts[0] not in without
    }


def assert_equal(a, b):
    for part in ("genes", "pairs"):
        for column in fields(getattr(a, part)):
            left, right = (getattr(getattr(r, part), column.name) for r in (a, b))
            assert np.array_equal(left, right), f"{part}.{column.name}"
            if isinstance(left, np.ndarray) and left.dtype.kind != "U":
                assert left.dtype == right.dtype
    assert np.array_equal(a.profile, b.profile)
    for name in ("name", "modality", "tissue", "species", "condition", "n_cells", "report", "provenance"):
        assert getattr(a, name) == getattr(b, name)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store.zarr")


@pytest.mark.parametrize(("G", "R", "density"), [(2, 1, 1.0), (60, 20, 0.2), (60, 3, 0.0), (500, 70, 0.9)])
def test_read_gives_what_was_committed(store, make_record, G, R, density):
    record = make_record(G=G, R=R, density=density)
    store.commit(record, "b1")
    assert_equal(store.read("lung"), record)
    assert store.verify() == []


def test_certainty_is_read_where_a_record_has_it(store, make_record):
    plain = make_record()
    values = np.linspace(0, 1, len(plain.genes), dtype=np.float32)
    record = replace(plain, genes=replace(plain.genes, certainty=values))
    for build, written, version in (("b1", plain, "1.0"), ("b2", record, "1.1")):
        store.commit(written, build)
        assert store.info("lung")["encoding-version"] == version
        assert_equal(store.read("lung"), written)
    assert store.read("lung").genes.certainty.dtype == np.float32
    np.testing.assert_array_equal(store.read("lung").genes.certainty, values)
    assert store.verify() == []


@pytest.mark.parametrize("values", [[0.5], np.full(60, 1.5), np.full(60, -0.1), np.full(60, np.nan)])
def test_certainty_outside_its_range_is_refused(store, make_record, values):
    plain = make_record()
    record = replace(plain, genes=replace(plain.genes, certainty=np.asarray(values, dtype=np.float32)))
    with pytest.raises(ValueError, match=r"genes\.certainty"):
        store.commit(record, "b1")
    assert store.datasets() == []


def test_catalogue(store, make_record):
    assert store.datasets() == []
    assert store.build_of("lung") is None
    store.commit(make_record("lung"), "b1")
    store.commit(make_record("brain", seed=1), "b1")
    assert store.datasets() == ["brain", "lung"]
    assert store.build_of("lung") == "b1"
    about = store.info("lung")
    assert (about["n_genes"], about["profile_columns"], about["build"], about["generation"]) == (60, 20, "b1", 1)
    data = store.path / "data" / "lung" / "b1"
    assert about["bytes"] == sum(p.stat().st_size for p in data.rglob("*") if p.is_file() and p.name != "MANIFEST.json")
    assert store.report("lung")["dropped"] == {"empty": 3}
    json.dumps(about)


def test_a_new_build_is_a_new_generation_and_the_old_one_stays(store, make_record):
    store.commit(make_record(seed=0), "b1")
    before = tree(store.path)
    store.commit(make_record(seed=1), "b2")
    after = tree(store.path)
    assert before.items() <= after.items()
    assert (store.build_of("lung"), store.info("lung")["generation"]) == ("b2", 2)
    assert_equal(store.read("lung"), make_record(seed=1))
    store.commit(make_record(seed=0), "b1")
    assert (store.build_of("lung"), store.info("lung")["generation"]) == ("b1", 3)
    assert store.verify() == []


def test_committing_the_same_build_again_does_nothing(store, make_record):
    store.commit(make_record(), "b1")
    before = tree(store.path, without=())
    store.commit(make_record(), "b1")
    assert tree(store.path, without=()) == before


def test_equal_builds_are_equal_bytes(tmp_path, make_record):
    trees = []
    for name in ("a", "b"):
        store = Store.create(tmp_path / name)
        store.commit(make_record(G=400, R=90, density=0.5), "b1", log={"seconds": {"scan": len(trees)}})
        trees.append(tree(store.path))
    assert trees[0] == trees[1]
    log = store.provenance("lung")["log"]
    assert log["seconds"] == {"scan": 1}
    assert {"time", "host", "software"} <= log.keys()


def test_any_zarr_reader_opens_the_arrays(store, make_record):
    record = make_record()
    store.commit(record, "b1")
    group = zarr.open_group(store.path / "data" / "lung" / "b1", mode="r")
    assert np.array_equal(group["graph/z"][:], record.pairs.z)
    assert bytes(group["genes/gene"][59]).rstrip(b"\0").decode() == "naïve-β"
    raw = json.loads((store.path / "data" / "lung" / "b1" / "graph" / "z" / "zarr.json").read_bytes())
    assert [c["name"] for c in raw["codecs"]] == ["sharding_indexed"]
    assert [c["name"] for c in raw["codecs"][0]["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]


def test_chunks_of_zeros_are_stored(store, make_record):
    record = make_record(density=0.5)
    record = replace(record, profile=np.zeros_like(record.profile))
    store.commit(record, "b1")
    folder = store.path / "data" / "lung" / "b1"
    for path in ("graph/estimate/c/0", "graph/histogram/c/0", "profile/X/c/0/0"):
        raw = (folder / path).read_bytes()
        offset, size = np.frombuffer(raw[-20:-4], dtype="<u8")
        assert size < 2**63, path
        assert offset == 0


def test_large_arrays_are_split_into_shards():
    assert chunks_of("graph/z", (10**7,)) == ((2**16,), (2**22,))
    assert chunks_of("profile/X", (20_000, 20_000)) == ((64, 16384), (1024, 16384))
    assert chunks_of("graph/z", (100_000,)) == ((2**16,), (2**17,))
    assert len(shard_keys("profile/X", (20_000, 20_000), (1024, 16384))) == 1 + 20 * 2


@given(st.integers(0, 10**8), st.integers(1, 50_000))
@settings(deadline=None)
def test_shards_are_whole_multiples_of_chunks(n, rows):
    for path, shape in (("graph/z", (n,)), ("profile/X", (rows, max(n, 1))), ("graph/indptr", (rows,))):
        chunk, shard = chunks_of(path, shape)
        assert all(s % c == 0 and c > 0 for c, s in zip(chunk, shard, strict=True))
        if path != "graph/indptr":
            assert np.prod([float(s) for s in shard]) * 4 <= 2**26


@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda t: "\0" not in t), min_size=1, max_size=20))
@settings(deadline=None)
def test_names_survive_packing(names):
    names = [name.encode(errors="ignore").decode() or "x" for name in names]
    assert unpack_names(pack_names(np.array(names))).tolist() == names


def test_a_name_with_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        pack_names(np.array(["a\0b"]))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/x", "a\\b", "a b", "-x", "ä", "a\n", "x" * 129])
def test_names_that_are_no_plain_folder_are_refused(store, make_record, name):
    before = tree(store.path, without=())
    for call in (
        lambda: store.commit(make_record(name), "b1"),
        lambda: store.commit(make_record(), name),
        lambda: store.read(name),
        lambda: store.build_of(name),
        lambda: store.info(name),
    ):
        with pytest.raises(InputError, match="E110"):
            call()
    assert tree(store.path, without=()) == before


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_folder_inside_the_store_or_refused(text):
    from musegnn.data_store.names import check_dataset_name

    try:
        name = check_dataset_name(text)
    except InputError:
        return
    assert "/" not in name
    assert name.isascii()
    assert name.strip(".") == name.lstrip(".").rstrip(".")
    assert name not in {".", ".."}


def corrupt(record, **changes):
    return replace(record, pairs=replace(record.pairs, **changes))


def test_records_that_break_a_promise_are_refused_before_anything_is_written(store, make_record):
    record = make_record(G=4, density=1.0)
    z, indices = record.pairs.z, record.pairs.indices
    nan = z.copy()
    nan[0] = np.nan
    names = record.genes.gene.copy()
    names[1] = names[0]
    bad = {
        "pairs.z has shape": corrupt(record, z=z[:-1]),
        "pairs.z holds NaN": corrupt(record, z=nan),
        "reach outside": corrupt(record, indices=indices + 1),
        "do not ascend": corrupt(record, indices=indices[::-1].copy()),
        "pairs.indptr": corrupt(record, indptr=record.pairs.indptr[::-1].copy()),
        "repeated names": replace(record, genes=replace(record.genes, gene=names)),
        "profile has shape": replace(record, profile=record.profile[:-1]),
        "not JSON compliant|Out of range": replace(record, report={"x": float("nan")}),
    }
    before = tree(store.path)
    for message, broken in bad.items():
        with pytest.raises(ValueError, match=message):
            store.commit(broken, "b1")
        assert tree(store.path) == before
    assert store.datasets() == []


def test_asymmetric_pairs_and_loops_are_refused(store, make_record):
    record = make_record(G=3, density=0.0)
    for indptr, indices, message in (([0, 1, 1, 1], [2], "not symmetric"), ([0, 1, 1, 1], [0], "with itself")):
        one = np.ones(1, dtype=np.float32)
        broken = corrupt(
            record, indptr=np.array(indptr), indices=np.array(indices, dtype=np.int32), z=one, estimate=one
        )
        with pytest.raises(ValueError, match=message):
            store.commit(broken, "b1")


def test_opening(tmp_path):
    with pytest.raises(StoreNotFoundError, match="E294"):
        Store.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    made = Store.open_or_create(tmp_path / "deep" / "store")
    assert Store.open_or_create(made.path).path == made.path
    assert pickle.loads(pickle.dumps(made)).path == made.path
    with pytest.raises(StoreNotFoundError, match="E294"):
        made.read("lung")
    with pytest.raises(StoreError, match="E293"):
        Store.create(made.path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="E293"):
        Store.open_or_create(tmp_path / "other")


def test_a_newer_store_is_refused(store):
    path = store.path / "FORMAT.json"
    content = json.loads(path.read_bytes())
    path.write_bytes(canonical_json(content | {"version": 3, "min_reader": 2}))
    with pytest.raises(StoreError, match=r"E290.*version 2.*version 1"):
        Store.open(store.path)
    path.write_bytes(canonical_json(content | {"version": 2}))
    Store.open(store.path)


def test_build_ids_depend_on_everything():
    base = ({"sha256": "ab"}, {"seed": 0, "genes": 10}, "1")
    assert build_id(*base) == build_id({"sha256": "ab"}, {"genes": 10, "seed": 0}, "1")
    others = [({"sha256": "ac"}, base[1], "1"), (base[0], {"seed": 1, "genes": 10}, "1"), (base[0], base[1], "2")]
    assert len({build_id(*base), *(build_id(*other) for other in others)}) == 4
    assert len(build_id(*base)) == 32


def test_threads_commit_different_datasets_at_once(store, make_record):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: store.commit(make_record(f"d{i}", seed=i), "b1"), range(8)))
    assert store.datasets() == [f"d{i}" for i in range(8)]
    assert store.verify() == []


@pytest.mark.parametrize("same", [True, False])
def test_processes_that_race_lose_nothing(store, make_record, same):
    context = multiprocessing.get_context("spawn")
    builds = ["b1"] * 3 if same else ["b1", "b2", "b3"]
    records = [make_record(seed=0 if same else i) for i in range(3)]
    racers = [context.Process(target=Store.commit, args=(store, r, b)) for r, b in zip(records, builds, strict=True)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert store.info("lung")["generation"] == (1 if same else 3)
    shown = {json.loads(p.read_bytes())["build"] for p in (store.path / "refs" / "lung").iterdir()}
    assert shown == set(builds)
    assert store.verify() == []


def test_files_get_the_permissions_of_the_umask(tmp_path, make_record):
    before = os.umask(0o027)
    try:
        store = Store.create(tmp_path / "store")
        store.commit(make_record("lung"), "b1")
    finally:
        os.umask(before)
    files = [path for path in store.path.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o077 for path in files} <= {0o040, 0o000}
