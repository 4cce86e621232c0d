"""Kills, full disks and damage: nothing committed is lost, and nothing damaged is returned."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from musegnn.data_store import Store, atomic_files
from musegnn.errors import StoreError, WriteError


def tree(path, *, without=("log", "tmp")):
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in path.rglob("*")
        if p.is_file() and p.relative_to(path).parts[0] not in without
    }


@pytest.fixture
def store(tmp_path, make_record):
    store = Store.create(tmp_path / "store.zarr")
    store.commit(make_record(), "b1")
    return store


@pytest.fixture
def folder(store):
    return store.path / "data" / "lung" / "b1"


# Makes one child per number, which kills itself with SIGKILL at that system call of a commit, wherever that is.
KILLER = """
import os, pickle, signal, sys
from pathlib import Path
from musegnn.data_store import Store
folder, record_file, call, *numbers = sys.argv[1:]
record = pickle.loads(Path(record_file).read_bytes())
original, count = getattr(os, call), 0

def commit(number):
    def counted(*args, **kwargs):
        global count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    store = Store.create(Path(folder) / f"{call}{number}")
    setattr(os, call, counted)
    store.commit(record, "b1")
    os._exit(0)

for number in map(int, numbers):
    child = os.fork()
    if child == 0:
        commit(number)
    print(number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def kill(tmp_path, make_record):
    """Run commits that are killed at the given calls; gives {number: exit code}, stores lie in `tmp_path`."""
    record_file = tmp_path / "record.pickle"
    record_file.write_bytes(pickle.dumps(make_record()))

    def run(call, *numbers):
        command = [sys.executable, "-c", KILLER, str(tmp_path), str(record_file), call, *map(str, numbers)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {int(number): int(code) for number, code in map(str.split, done.stdout.splitlines())}

    return run


STEPS = {"fsync": 60, "replace": 32, "unlink": 33, "link": 1}
FEW = [(call, range(1, last + 1, 12)) for call, last in STEPS.items()]
ALL = [pytest.param(call, range(1, last + 1), marks=pytest.mark.slow) for call, last in STEPS.items()]


@pytest.mark.parametrize(("call", "numbers"), FEW + ALL)
def test_a_killed_commit_is_completed_with_the_same_bytes(tmp_path, store, make_record, kill, call, numbers):
    codes = kill(call, *numbers)
    killed = [number for number, code in codes.items() if code == -9]
    assert len(killed) >= 0.8 * len(numbers)
    for number in killed:
        victim = Store.open(tmp_path / f"{call}{number}")
        assert victim.verify() == []
        if victim.datasets():
            assert np.array_equal(victim.read("lung").pairs.z, make_record().pairs.z)
        else:
            assert victim.build_of("lung") is None
        victim.commit(make_record(), "b1")
        assert tree(victim.path) == tree(store.path)
        assert victim.verify() == []


def test_a_kill_before_the_reference_shows_nothing(tmp_path, make_record, kill):
    assert kill("link", 1) == {1: -9}
    victim = Store.open(tmp_path / "link1")
    assert (victim.path / "data" / "lung" / "b1" / "MANIFEST.json").is_file()
    assert victim.datasets() == []
    assert len(list((victim.path / "tmp").glob("*.partial"))) == 1
    victim.commit(make_record(), "b1")
    assert list((victim.path / "tmp").glob("*.partial")) == []


def test_every_flipped_byte_is_found(store, folder):
    """One random bit of every file of a build, one after another."""
    rng = np.random.default_rng(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(StoreError) as caught:
            store.read("lung")
        assert caught.value.code in {"E130", "E131"}
        assert path.name in str(caught.value)
        assert "\n" not in caught.value.line()
        assert store.verify() != []
        path.write_bytes(whole)
    assert store.verify() == []


def test_the_chunk_checksum_finds_a_flip_without_the_manifest(folder):
    import zarr

    path = folder / "graph" / "z" / "c" / "0"
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(folder, mode="r")["graph/z"][:]


def test_a_missing_file_is_an_error_and_never_zeros(store, folder):
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(StoreError) as caught:
            store.read("lung")
        assert caught.value.code in {"E130", "E132"}
        with pytest.raises(StoreError):
            store.info("lung")
        assert store.verify() != []
        path.write_bytes(b"")
        with pytest.raises(StoreError):
            store.read("lung")
        path.write_bytes(whole)
    assert store.verify() == []


def test_an_array_without_a_chunk_in_a_matching_manifest_is_an_error(store, folder):
    """A manifest and a reference that were made for a build without one chunk do not hide that it is missing."""
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    del manifest["files"]["graph/z/c/0"]
    (folder / "graph" / "z" / "c" / "0").unlink()
    raw = json.dumps(manifest).encode()
    (folder / "MANIFEST.json").write_bytes(raw)
    path = store.path / "refs" / "lung" / "000000000001.json"
    content = json.loads(path.read_bytes()) | {"manifest_sha256": hashlib.sha256(raw).hexdigest()}
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(StoreError, match=r"E132.*graph/z lacks 1 chunks"):
        store.read("lung")
    assert store.verify() != []


def test_swapped_files_of_equal_size_are_found(store, folder):
    """Both files are whole, of one size, and have the same CRC-32C: that of bytes ending in their own CRC-32C."""
    a, b = folder / "genes" / "mu" / "c" / "0", folder / "genes" / "mean" / "c" / "0"
    first, second = a.read_bytes(), b.read_bytes()
    assert len(first) == len(second)
    assert first != second
    a.write_bytes(second)
    b.write_bytes(first)
    with pytest.raises(StoreError, match="E131"):
        store.read("lung")


def test_a_link_in_place_of_a_file_is_refused(tmp_path, store, folder):
    path = folder / "graph" / "z" / "c" / "0"
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a link"):
        store.read("lung")


def test_a_manifest_that_leaves_its_folder_is_refused(store, folder):
    raw = json.dumps({"files": {"../../../../etc/passwd": [1, 1]}, "format": "musegnn-manifest", "version": 1}).encode()
    (folder / "MANIFEST.json").write_bytes(raw)
    path = store.path / "refs" / "lung" / "000000000001.json"
    content = json.loads(path.read_bytes()) | {"manifest_sha256": hashlib.sha256(raw).hexdigest()}
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    with pytest.raises(StoreError, match="outside its folder"):
        store.read("lung")


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b'{"build":"../x"}', b"\xff\xfe", b"[" * 5000])
def test_a_damaged_reference_is_an_error_and_not_the_generation_before(store, make_record, content):
    store.commit(make_record(seed=1), "b2")
    (store.path / "refs" / "lung" / "000000000002.json").write_bytes(content)
    for call in (store.read, store.info, store.build_of):
        with pytest.raises(StoreError, match="E130"):
            call("lung")
    assert "damaged" in store.verify()[0]
    assert "damaged" in store.verify("lung")[0]


def test_a_dataset_that_was_never_committed_cannot_be_verified(store):
    with pytest.raises(StoreError, match="E294"):
        store.verify("brain")


def test_foreign_files_are_reported(store, folder):
    (folder / "graph" / "notes.txt").write_text("x")
    assert store.verify() == ["lung/b1: graph/notes.txt does not belong here"]
    store.read("lung")


def test_a_full_disk_commits_nothing_and_leaves_nothing_unfinished(store, make_record, monkeypatch):
    before = tree(store.path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", full)
    with pytest.raises(WriteError, match=r"E140.*Fix: free space"):
        store.commit(make_record(seed=1), "b2")
    monkeypatch.undo()
    assert list((store.path / "tmp").glob("*.partial")) == []
    assert store.build_of("lung") == "b1"
    assert tree(store.path) == before
    store.commit(make_record(seed=1), "b2")
    assert store.verify() == []


def test_a_limit_on_file_size_is_a_full_disk(store, make_record):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(WriteError, match="E140"):
            store.commit(make_record("brain"), "b1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.datasets() == ["lung"]
    store.commit(make_record("brain"), "b1")
    assert store.verify() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_store_is_named(store, make_record):
    for folder in (store.path, store.path / "tmp", store.path / "data"):
        folder.chmod(0o500)
    try:
        with pytest.raises(WriteError, match="E292"):
            store.commit(make_record("brain"), "b1")
    finally:
        for folder in (store.path, store.path / "tmp", store.path / "data"):
            folder.chmod(0o700)


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="E292"):
        Store.create(tmp_path / "file" / "store")
