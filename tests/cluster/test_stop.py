"""A build that is interrupted ends within about a task, says how to go on, and goes on.

This file is also the program that is interrupted: the command line, with tasks that take longer.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from musegnn.cli import main
from musegnn.cluster import build as cluster_build

if TYPE_CHECKING:
    from pathlib import Path

TASK_SECONDS = 0.2
PATIENCE = 60.0


SMALL_TASKS = partial(cluster_build.build_graphs, block_rows=4, device="cpu")


def command_line(*arguments: str) -> None:
    """Run the command line with small tasks, which are slow on this machine."""
    from musegnn.coexpression import build

    scan = build.scan_range

    def slow(*given):
        time.sleep(TASK_SECONDS)
        return scan(*given)

    cluster_build.build_graphs = SMALL_TASKS
    if "distributed" not in arguments:  # whose tasks must be importable elsewhere
        build.scan_range = slow
    main(arguments)


def committed(store: Path) -> dict[str, str]:
    files = [p for p in store.rglob("*") if p.is_file() and p.relative_to(store).parts[0] not in {"log", "tmp"}]
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    """Return an atlas of three datasets with 60 ranges of cells each."""
    folder = tmp_path_factory.mktemp("stop")
    datasets = []
    for seed, name in enumerate(["one", "two", "three"]):
        rng = np.random.default_rng(seed)
        level = rng.gamma(3.0, 1 / 3, (240, 40))
        level[:, :15] *= rng.gamma(2.0, 0.5, (240, 1))
        data = ad.AnnData(csr_matrix(rng.poisson(400 * level * rng.dirichlet(np.ones(40) * 3)).astype(np.float32)))
        data.write_h5ad(folder / f"{name}.h5ad")
        entry = {"name": name, "path": f"{name}.h5ad", "modality": "scrna", "tissue": "lung", "species": "human"}
        datasets.append(entry)
    (folder / "atlas.yaml").write_text(json.dumps({"datasets": datasets, "graph": {"n_genes": 20}}))
    return folder / "atlas.yaml"


@pytest.mark.parametrize("scheduler", ["threads", "synchronous", "distributed"])
@pytest.mark.filterwarnings("default")  # distributed warns about its own sockets when a cluster closes
def test_ctrl_c_stops_a_build_that_can_go_on(atlas, tmp_path, monkeypatch, scheduler):
    monkeypatch.setattr(cluster_build, "build_graphs", SMALL_TASKS)
    store = tmp_path / "store"
    options = ["build", str(atlas), "--store", str(store), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, __file__, *options, "--scheduler", scheduler],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not list(store.glob("tmp/work/*/*/scan/*.npz")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, told = process.communicate(timeout=PATIENCE)
    seconds = time.monotonic() - began
    assert process.returncode == 130
    assert told.splitlines()[-1] == "musegnn: stopped; run the same command again to continue"
    assert "Traceback" not in told
    assert seconds < (5.0 if scheduler != "distributed" else 20.0)
    assert committed(store).keys() <= {"FORMAT.json"}
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 0
    with pytest.raises(SystemExit):
        main(["build", str(atlas), "--store", str(tmp_path / "undisturbed"), "--quiet"])
    assert committed(store) == committed(tmp_path / "undisturbed")


if __name__ == "__main__":
    command_line(*sys.argv[1:])
