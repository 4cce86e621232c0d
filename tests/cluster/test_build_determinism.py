"""One graph, bit for bit: whatever runs the tasks, in which order, on how many threads, whole or as a stratum."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from musegnn.cluster import build as cluster_build
from musegnn.coexpression import build as coexpression_build
from musegnn.coexpression.tasks import complete
from musegnn.coexpression.warm_up import warm_up
from musegnn.config import AtlasConfig, DatasetConfig, GraphConfig
from musegnn.data_store import Store, open_matrix

if TYPE_CHECKING:
    from pathlib import Path

GRAPH = GraphConfig(n_genes=150)
build_graphs = partial(cluster_build.build_graphs, block_rows=64, device="cpu")
build_dataset = partial(coexpression_build.build_dataset, block_rows=64)
KINDS = ("a", "b", "c")


def write(path: Path) -> Path:
    rng = np.random.default_rng(0)
    n, genes = 700, 220
    level = rng.gamma(3.0, 1 / 3, (n, genes))
    level[:, :60] *= rng.gamma(2.0, 0.5, (n, 1))
    rate = rng.lognormal(7.0, 0.5, (n, 1)) * level * rng.dirichlet(np.ones(genes) * 2)
    data = ad.AnnData(csr_matrix(rng.poisson(rate).astype(np.float32)))
    data.obs["kind"] = rng.choice(KINDS, n, p=[0.5, 0.3, 0.2])
    data.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("bits") / "whole.h5ad")


def about(path: Path, **more: object) -> DatasetConfig:
    entry = {"name": "one", "path": path, "modality": "scrna", "tissue": "lung", "species": "human"} | more
    return DatasetConfig.model_validate(entry)


def bits(record) -> dict[str, bytes]:
    pairs = record.pairs
    arrays = {"z": pairs.z, "estimate": pairs.estimate, "indices": pairs.indices, "indptr": pairs.indptr}
    arrays |= {
        "histogram": pairs.histogram,
        "profile": record.profile,
        "mu": record.genes.mu,
        "score": record.genes.score,
        "certainty": record.genes.certainty,
    }
    return {name: np.ascontiguousarray(values).tobytes() for name, values in arrays.items()} | {
        "genes": "\n".join(record.genes.gene).encode()
    }


@pytest.fixture(scope="module")
def expected(path) -> dict[str, bytes]:
    return bits(build_dataset(open_matrix(path), about(path), GRAPH))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_order_of_arrival_threads_and_stripes_do_not_matter(path, expected, threads, seed):
    warm_up()

    def shuffled(tasks, done):
        order = list(tasks)
        random.Random(seed).shuffle(order)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(complete, order))
        for task in order:
            done(task)

    few = 16 * 64 * 220  # sums of one task hold about 64 rows
    record = build_dataset(
        open_matrix(path), about(path), GRAPH, runner=shuffled, parallel=threads, stripe_bytes=few if seed else 1 << 30
    )
    assert bits(record) == expected


@pytest.mark.parametrize(
    "scheduler", ["threads", "synchronous", "distributed", pytest.param("ray", marks=pytest.mark.cluster)]
)
@pytest.mark.filterwarnings("default")  # distributed and Ray warn about their own sockets when a cluster closes
def test_the_scheduler_does_not_matter(path, expected, tmp_path, monkeypatch, scheduler):
    for name, value in {"RAY_worker_niceness": "0", "RAY_TMPDIR": "/tmp"}.items():
        monkeypatch.setenv(name, value)
    store = Store.create(tmp_path / "store")
    build_graphs(AtlasConfig(datasets=(about(path),), graph=GRAPH), store, scheduler=scheduler)
    assert bits(store.read("one")) == expected


def test_a_stratum_is_the_graph_of_its_cells_alone(path, tmp_path):
    store = Store.create(tmp_path / "store")
    apart = GRAPH.model_copy(update={"select_by": "dataset"})
    atlas = AtlasConfig(datasets=(about(path, by="kind"),), graph=apart)
    assert build_graphs(atlas, store) == [f"one.{kind}" for kind in KINDS]
    whole = ad.read_h5ad(path)
    for kind in KINDS:
        alone = tmp_path / f"{kind}.h5ad"
        whole[whole.obs["kind"] == kind].copy().write_h5ad(alone)
        assert bits(store.read(f"one.{kind}")) == bits(build_dataset(open_matrix(alone), about(alone), GRAPH))


def test_a_torch_device_gives_the_same_graph(path, expected, tmp_path, monkeypatch):
    """The path of GPUs through a whole build, on the CPU device: z to float32, and nearly all pairs."""
    from musegnn.coexpression import pairs
    from musegnn.kernels.gram import WeightedGram

    class OnTorch(WeightedGram):
        def __init__(self, *given, **options) -> None:
            super().__init__(*given, **options | {"impl": "torch", "device": "cpu"})

    monkeypatch.setattr(pairs, "WeightedGram", OnTorch)
    record = build_dataset(open_matrix(path), about(path), GRAPH)
    ours = np.frombuffer(expected["z"], np.float32)
    assert len(record.pairs.z) == len(ours)
    np.testing.assert_allclose(record.pairs.z, ours, rtol=2e-7)
