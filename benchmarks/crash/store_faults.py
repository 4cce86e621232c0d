"""Flipped bits, concurrent commits, full disks and read-only folders."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.crash.records import make_atlas, make_record
from musegnn.data_store import Store
from musegnn.data_store.commit import references
from musegnn.errors import MuseGNNError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Flips:
    """Number of single bits flipped, of those that ``verify`` found, and of wrong values that a reader returned."""

    flipped: int = 0
    found: int = 0
    misread: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


def flip_bits(flips: int, *, seed: int = 0) -> Flips:
    """Flip one random bit of a random file of a store at a time; look for it, and read everything."""
    result, rng = Flips(), np.random.default_rng(seed)
    with TemporaryDirectory(prefix="musegnn-") as folder:
        store = Store.create(Path(folder) / "store.zarr")
        for name, number in (("lung", 0), ("lung", 1), ("brain", 2)):
            store.commit(make_record(name, seed=number), f"b{number}")
        calls = (_values, store.info, store.report, store.provenance)
        truth = {(call, name): _read(call, store, name) for call in calls for name in store.datasets()}
        files = sorted(p for p in store.path.rglob("*") if p.is_file() and p.stat().st_size)
        for _ in range(flips):
            path = files[int(rng.integers(len(files)))]
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            result.flipped += 1
            where = path.relative_to(store.path).as_posix()
            try:
                found = bool(Store.open(store.path).verify())
            except MuseGNNError:
                found = True
            result.found += found
            result.missed += [] if found else [where]
            wrong = any(_read(call, store, name) not in (expected, None) for (call, name), expected in truth.items())
            result.misread += [where] if wrong else []
            path.write_bytes(whole)
        if store.verify():
            result.missed.append("the store is not what it was before")
    return result


def _values(store: Store, name: str) -> bytes:
    record = store.read(name)
    arrays = (record.genes.gene, record.genes.mean, record.pairs.indices, record.pairs.z, record.profile)
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def _read(call: Callable[..., object], store: Store, name: str) -> object:
    """Return what a reader gives, ``None`` for an error of the store."""
    try:
        return call(store, name) if call is _values else call(name)
    except MuseGNNError:
        return None


def concurrent_commits(processes: int, commits: int) -> tuple[int, list[str]]:
    """Let processes commit builds of one dataset at the same time; return how many are kept, and problems."""
    with TemporaryDirectory(prefix="musegnn-") as folder:
        store = Store.create(Path(folder) / "store.zarr")
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=_commit, args=(store, k, commits)) for k in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        builds = {reference.build for reference in references(store.path, "lung")}
        wanted = {f"p{k}-{i}" for k in range(processes) for i in range(commits)}
        failed = [f"process {k} ended with {w.exitcode}" for k, w in enumerate(workers) if w.exitcode]
        return len(builds & wanted), failed + store.verify()


def _commit(store: Store, process: int, commits: int) -> None:
    for i in range(commits):
        store.commit(make_record("lung", seed=1000 * process + i, n_genes=8, columns=3), f"p{process}-{i}")


NOTES = ("musegnn: note: ", "musegnn: WARNING: ", "musegnn: INFO: ")
IN_MOUNT = 'mkdir -p "$1" && mount -t tmpfs -o "$2" none "$1" && shift 2 && exec "$@"'


def full_and_read_only(places: tuple[str, ...] = ("size=100k", "size=200k", "size=300k", "ro")) -> dict[str, str]:
    """Build and train on a small file system that fills up, and on one that cannot be written.

    Parameters
    ----------
    places
        Options of the file systems, as ``mount -t tmpfs -o`` takes them.

    Returns
    -------
    dict of str to str
        What is wrong by the name of the trial, empty where the command ended with code 2 and one line; empty dict where
        this system lets nobody mount file systems.
    """
    allowed = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/proc"]
    if shutil.which("unshare") is None or subprocess.run(allowed, check=False, capture_output=True).returncode:
        return {}
    result = {}
    with TemporaryDirectory(prefix="musegnn-") as name:
        folder = Path(name)
        atlas = make_atlas(folder)
        place = folder / "mounted"
        place.mkdir()
        for options in places:
            for command in (("build", "--store"), ("run", "--out")):
                line = [command[0], str(atlas), command[1], str(place / "result"), "--quiet"]
                mounted = ["unshare", "-rm", "sh", "-c", IN_MOUNT, "sh", str(place), options]
                done = subprocess.run(
                    [*mounted, sys.executable, "-m", "musegnn", *line], capture_output=True, text=True, check=False
                )
                errors = [line for line in done.stderr.splitlines() if not line.startswith(NOTES)]
                fine = done.returncode == 2 and len(errors) == 1 and "Fix: " in errors[0]
                result[f"{command[0]} {options}"] = "" if fine else f"code {done.returncode}: {done.stderr[-300:]}"
        shutil.rmtree(place)
    return result
