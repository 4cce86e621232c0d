"""What is predicted before a build, against the build."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csc_matrix, csr_matrix

from musegnn.cli import main
from musegnn.cluster.build import build_graphs
from musegnn.cluster.estimate import estimate_graphs, sample_source
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
from musegnn.data_store import Store, open_matrix
from musegnn.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, n: int, genes: int, *, by_column: bool = False, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    level = rng.lognormal(0.0, 0.4, (n, 1)) * rng.lognormal(0.0, 1.0, genes) * 0.15
    level[:, : genes // 3] *= rng.gamma(1.0, 1.0, (n, 1))
    counts = rng.poisson(level).astype(np.float32)
    data = ad.AnnData(csc_matrix(counts) if by_column else csr_matrix(counts))
    data.obs["kind"] = np.where(np.arange(n) % 3 == 0, "a", "b")
    data.write_h5ad(path)
    return path


def atlas_of(path: Path, graph: GraphConfig, **about: object) -> AtlasConfig:
    entry = {"name": "one", "path": path, "modality": "scrna", "tissue": "lung", "species": "human"} | about
    return AtlasConfig(datasets=(DatasetConfig.model_validate(entry),), graph=graph)


@pytest.mark.parametrize(
    ("graph", "passes"),
    [
        (GraphConfig(n_genes=60), 4),
        (GraphConfig(selection="all"), 3),
        (GraphConfig(selection="all", residuals="pearson"), 2),
        (GraphConfig(selection="list", genes=("3", "5", "8", "no such gene")), 3),
    ],
)
def test_genes_and_passes_are_those_of_the_build(tmp_path, graph, passes):
    atlas = atlas_of(write(tmp_path / "one.h5ad", 400, 120), graph)
    (found,) = estimate_graphs(atlas).datasets
    told: list[str] = []
    store = Store.create(tmp_path / "store")
    build_graphs(atlas, store, progress=lambda task, done, total, note="": told.append(note))
    read = [note for note in dict.fromkeys(told) if note in {"scan", "select", "variance", "extract"}]
    assert found.passes == len(read) == passes
    assert found.selected == len(store.read("one").genes)
    assert (found.cells, found.genes) == (400, 120)


def test_strata_are_estimated_one_by_one(tmp_path):
    path = write(tmp_path / "one.h5ad", 400, 60)
    found = estimate_graphs(atlas_of(path, GraphConfig(selection="all"), by="kind"))
    assert [(d.name, d.cells) for d in found.datasets] == [("one.a", 134), ("one.b", 266)]


def test_a_bound_cuts_what_tasks_take_and_too_little_is_refused(tmp_path):
    atlas = atlas_of(write(tmp_path / "one.h5ad", 300, 5000), GraphConfig(selection="all", profile_rank=64))
    roomy, tight = (estimate_graphs(atlas, memory=m).datasets[0] for m in (4_000_000_000, 550_000_000))
    assert tight.memory < roomy.memory
    with pytest.raises(ConfigError, match="E310"):
        estimate_graphs(atlas, memory=100_000_000)


def test_processes_elsewhere_are_told_apart(tmp_path):
    atlas = atlas_of(write(tmp_path / "one.h5ad", 300, 80), GraphConfig(selection="all"))
    assert estimate_graphs(atlas).per_worker == 0
    remote = estimate_graphs(atlas, scheduler="ray")
    assert remote.per_worker == remote.memory > 0
    with pytest.raises(ConfigError, match="slurm"):
        estimate_graphs(atlas, scheduler="slurm")


@pytest.mark.parametrize("by_column", [False, True])
def test_a_sample_stands_for_the_whole(tmp_path, by_column):
    path = write(tmp_path / "one.h5ad", 6000, 50, by_column=by_column)
    counts = ad.read_h5ad(path).X.toarray()
    sample = sample_source(open_matrix(path))
    detected = (counts > 0).mean(axis=0)
    error = np.sqrt(detected * (1 - detected) / 2048)
    assert (np.abs(sample.detected - detected) < 5 * error).all()
    assert sample.seconds > 0


def test_genes_that_a_sample_misses_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    n, genes = 20_000, 3000
    rare = rng.random((n, genes), dtype=np.float32) < 1 / 2000
    rare[:, :5] = True
    data = ad.AnnData(csr_matrix(rare * np.float32(2.0)))
    data.write_h5ad(tmp_path / "rare.h5ad")
    sample = sample_source(open_matrix(tmp_path / "rare.h5ad"))
    seen = int((sample.detected > 0).sum())
    assert seen < 0.75 * genes
    assert abs(seen + sample.unseen - genes) < 0.1 * genes


def test_memory_is_within_a_third_of_the_peak(tmp_path):
    path = write(tmp_path / "one.h5ad", 4000, 2200)
    (found,) = estimate_graphs(atlas_of(path, GraphConfig(selection="all"))).datasets
    command = [sys.executable, "-m", "benchmarks.probes.build", str(path), json.dumps({"selection": "all"})]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # compiles, which takes memory of its own
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    peak = json.loads(done.stdout)["peak"]
    assert peak > 2 * 250 * 2**20, "the base alone decides"
    assert abs(found.memory / peak - 1.0) < 0.3


def test_the_command_prints_a_table_or_json(tmp_path, capsys):
    write(tmp_path / "one.h5ad", 300, 80)
    atlas = tmp_path / "atlas.yaml"
    atlas.write_text(
        "datasets: [{name: one, path: one.h5ad, modality: scrna, tissue: lung, species: human}]\ngraph: {n_genes: 40}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["estimate", str(atlas), "--memory", "2GB"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "together: peak memory" in shown
    assert shown.splitlines()[1].split()[:5] == ["one", "300", "80", "40", "4"]
    with pytest.raises(SystemExit):
        main(["estimate", str(atlas), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["datasets"][0]["selected"] == 40
    assert told["memory"] == told["datasets"][0]["memory"]
    assert not list(tmp_path.glob("*store*"))
