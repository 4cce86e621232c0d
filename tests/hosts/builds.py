"""Builds of graphs by the hosts of a laboratory, on Ray and on dask."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from scipy.sparse import csr_matrix

from tests.hosts.lab import address
from tests.hosts.plays import HEAD, PYTHON, ROOT, WORKERS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.plays import Cluster

PATIENCE = 240.0
CELLS, GENES = 1600, 160
DASK_PORT = 8786


def make_atlas(folder: Path) -> Path:
    """Write counts of two datasets, and build them in one process; return the atlas."""
    atlas = folder / "atlas.yaml"
    if atlas.exists():
        return atlas
    folder.mkdir(parents=True, exist_ok=True)
    datasets = []
    for seed, name in enumerate(("one", "two")):
        rng = np.random.default_rng(seed)
        level = rng.gamma(3.0, 1 / 3, (CELLS, GENES))
        level[:, : GENES // 3] *= rng.gamma(2.0, 0.5, (CELLS, 1))
        counts = rng.poisson(800 * level * rng.dirichlet(np.ones(GENES) * 3)).astype(np.float32)
        ad.AnnData(csr_matrix(counts)).write_h5ad(folder / f"{name}.h5ad")
        about = {"modality": "scrna", "tissue": "lung", "species": "human"}
        datasets.append({"name": name, "path": f"{name}.h5ad"} | about)
    atlas.write_text(json.dumps({"datasets": datasets, "graph": {"n_genes": 100}}))
    from tests.hosts.command import build

    build(str(atlas), str(folder / "alone"), "threads")
    return atlas


def committed(store: Path) -> dict[str, str]:
    """Digest all that readers of a store see."""
    files = [p for p in store.rglob("*") if p.is_file() and p.relative_to(store).parts[0] not in {"log", "tmp"}]
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def play_build(
    cluster: Cluster, folder: Path, scheduler: str, cut: float | None
) -> tuple[int | None, bool, float, str]:
    """Build on all hosts, with the cable of one out for some seconds or not.

    Return the exit code of the command, whether the store has the bytes of one process, the seconds from the start or
    the fault to the end, and the last line of the command.
    """
    atlas, lab = make_atlas(folder.parent / "counts"), cluster.lab
    shutil.rmtree(folder, ignore_errors=True)
    log, started = folder.with_suffix(".log"), []
    if scheduler == "ray":
        lab.env["RAY_ADDRESS"] = f"{address(HEAD)}:6379"
    else:
        started = _start_dask(cluster, folder)
        scheduler = f"tcp://{address(HEAD)}:{DASK_PORT}"
    try:
        process = lab.start(
            HEAD, [PYTHON, str(ROOT / "tests" / "hosts" / "command.py"), str(atlas), str(folder), scheduler], log
        )
        at = time.monotonic()
        if cut is not None:
            _wait(lambda: len(list(folder.rglob("tmp/**/*.npz"))) >= 20 or process.poll() is not None)
            at = time.monotonic()
            lab.cut(WORKERS[0])
            _wait(lambda: process.poll() is not None, cut)
            seconds = time.monotonic() - at
            lab.mend(WORKERS[0])
        if process.poll() is None:
            _wait(lambda: process.poll() is not None)
            seconds = time.monotonic() - at
    finally:
        lab.env.pop("RAY_ADDRESS", None)
        if process.poll() is None:
            process.kill()
            process.wait()
        for each in started:
            each.kill()
    same = process.returncode == 0 and committed(folder) == committed(folder.parent / "counts" / "alone")
    return process.returncode, same, seconds, (log.read_text().strip().splitlines() or [""])[-1]


def _start_dask(cluster: Cluster, folder: Path) -> list:
    lab, place = cluster.lab, f"tcp://{address(HEAD)}:{DASK_PORT}"
    common = ["--no-dashboard", "--host"]
    words = ["scheduler", "--port", str(DASK_PORT), *common, address(HEAD)]
    started = [lab.start(HEAD, [PYTHON, "-m", "dask", *words], folder.with_suffix(".scheduler"))]
    for host in WORKERS:
        words = ["worker", place, "--nthreads", "1", "--no-nanny", *common, address(host)]
        started.append(lab.start(host, [PYTHON, "-m", "dask", *words], folder.with_suffix(f".worker{host}")))
    return started


def _wait(condition, seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)
