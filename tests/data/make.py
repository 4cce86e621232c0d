"""Make the store and the runs of this folder, see README.md.

Run as ``python -m tests.data.make FOLDER`` with the state of the program whose formats are to be kept. FOLDER is made.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from operator import attrgetter
from pathlib import Path

import anndata as ad
import numpy as np
from scipy.sparse import csr_matrix

import musegnn as mg

N_CELLS, N_GENES = 200, 60
DATASETS = {"blood": "scrna", "lung": "scrna", "slide": "spatial"}
SETTINGS = """
graph: {n_genes: 50}
model: {dim: 16}
training: {checkpoint_every: 2, threads: 1}
"""
RUNS = {
    "closed_form": {},
    "transformer": {"model.encoder": "transformer", "model.head_dim": 4, "training.rounds": 2},
}
ARRAYS = (
    *(
        f"genes.{name}"
        for name in ("gene", "gene_id", "mean", "variance", "n_cells", "mu", "sigma", "score", "certainty")
    ),
    *(f"pairs.{name}" for name in ("indptr", "indices", "z", "estimate", "histogram")),
    "profile",
)


def write_counts(path: Path, seed: int) -> None:
    """Simulate counts of shared genes, most of which follow four programmes of the cells."""
    random = np.random.default_rng(seed)
    xy = random.uniform(0, 100, (N_CELLS, 2))
    programme = (xy[:, 0] // 25).astype(int)
    level = np.ones((N_CELLS, N_GENES))
    for k in range(4):
        level[programme == k, 10 * k : 10 * k + 10] *= 1.5 + 0.25 * k
    rate = level * np.random.default_rng(0).dirichlet(np.full(N_GENES, 3.0)) * random.lognormal(6.0, 0.4, (N_CELLS, 1))
    adata = ad.AnnData(csr_matrix(random.poisson(rate).astype(np.float32)), obsm={"spatial": xy})
    adata.var_names = [f"GENE{j}" for j in range(N_GENES)]
    adata.write_h5ad(path)


def digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's values; names count as lines of UTF-8."""
    raw = "\n".join(array.tolist()).encode() if array.dtype.kind == "U" else np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(raw).hexdigest()


def main(folder: Path) -> None:
    """Make everything. The counts are not kept, nor what names the machine or the time of day."""
    counts = folder / "counts"
    counts.mkdir(parents=True)
    lines = ["datasets:"]
    for seed, (name, modality) in enumerate(DATASETS.items(), 1):
        write_counts(counts / f"{name}.h5ad", seed)
        lines.append(f"  - {{name: {name}, path: {name}.h5ad, modality: {modality}, tissue: {name}, species: human}}")
    (counts / "atlas.yaml").write_text("\n".join(lines) + SETTINGS)
    store = mg.build_graphs(mg.load_atlas(counts / "atlas.yaml"), folder / "store", scheduler="synchronous")
    for name, settings in RUNS.items():
        model = mg.MuSeGNN(store, mg.load_atlas(counts / "atlas.yaml", settings)).train(folder / name)
        np.savez_compressed(folder / f"{name}.npz", **model.vectors())
    records = {name: store.read(name) for name in store.datasets()}
    sums = {name: {array: digest(attrgetter(array)(record)) for array in ARRAYS} for name, record in records.items()}
    (folder / "sha256.json").write_text(json.dumps(sums, indent=1) + "\n")
    for unwanted in (counts, folder / "store" / "log", folder / "store" / "tmp", *folder.glob("*/tensorboard")):
        shutil.rmtree(unwanted, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
